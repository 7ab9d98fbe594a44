"""The options that several commands share, so that they are spelled and explained once.

Underscores work too (``--max_seq_len``): the group in ``main`` normalizes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import wraps
from typing import Any, TypeVar, cast

import click

from llamakit.cli.completion import registered
from llamakit.cli.name_option import NameOption
from llamakit.cli.number_types import Number, Seed, WholeNumber
from llamakit.cli.user_path import UserPath
from llamakit.errors import UsageError
from llamakit.llama.options import LoadOptions, SamplingOptions
from llamakit.plugin_manager.factories import Choice
from llamakit.runtime.rank_environment import JOIN_TIMEOUT as SECONDS
from llamakit.runtime.rank_environment import JOIN_TIMEOUT_VARIABLE

CONSTRAINTS = {"json_schema": "file", "regex": "pattern", "grammar": "file"}
"""Options that are short for a processor of the same name, and the option of it that they set."""

F = TypeVar("F", bound=Callable[..., Any])


JOIN_TIMEOUT = click.option(
    "--join-timeout",
    metavar="SECONDS",
    type=Number(min=1),
    envvar=JOIN_TIMEOUT_VARIABLE,
    show_envvar=True,
    help=f"How long the processes may take to find each other.  [default: {SECONDS:g}]",
)


PROMPT_FORMAT = click.option(
    "--prompt-format",
    cls=NameOption,
    registry="prompt_formats",
    metavar="NAME[:K=V,...]",
    help="How a dialog becomes tokens.  [default: that of the tokenizer's models]",
)


def join_timeout_of(arguments: Sequence[str]) -> float | None:
    """Return the join timeout that a command line names, whatever else is in it.

    The ranks other than 0 have the command line of rank 0, and run no command.
    """
    settings = {
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "token_normalize_func": lambda token: token.replace("_", "-"),  # as the group in ``main``
    }
    reader = click.Command("worker", add_help_option=False, context_settings=settings)
    JOIN_TIMEOUT(reader)
    context = reader.make_context("llamakit", list(arguments))
    timeout: float | None = context.params["join_timeout"]
    return timeout


def model_options(command: F) -> F:
    """Add the options that say which model to run, and how.

    The function gets ``model`` (None: the bundled demo model) and ``loading``: a ``LoadOptions``.
    """
    return _add(
        _gather(command, "loading", LoadOptions),
        click.option(
            "-m",
            "--model",
            "--ckpt-dir",
            "model",
            metavar="FOLDER",
            type=UserPath(),
            envvar="LLAMAKIT_MODEL",
            show_envvar=True,
            help="The checkpoint to run.  [default: the bundled demo model]",
        ),
        click.option(
            "--tokenizer",
            "--tokenizer-path",
            "tokenizer",
            metavar="FILE",
            type=UserPath(),
            help="Its tokenizer.  [default: the one in the checkpoint's folder or next to it]",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
            default="auto",
            show_default=True,
            help="What to compute in.",
        ),
        click.option(
            "--device",
            type=click.Choice(["auto", "cpu", "cuda", "mps"]),
            default="auto",
            show_default=True,
            help="Where to compute.",
        ),
        click.option(
            "--quantize",
            type=click.Choice(["int8", "int4"]),
            help="Quantize the weights to 8 or 4 bits while they are read.",
        ),
        click.option(
            "--kv-cache",
            type=click.Choice(["int8"]),
            help="Round keys and values to 8 bits: half the memory a token.  "
            "[default: keep them as computed]",
        ),
        click.option(
            "--compile/--no-compile",
            default=None,
            help="Compile the step that writes a token, on one rank.  "
            "[default: on a GPU, once it has run long enough to pay]",
        ),
        click.option(
            "--model-parallel-size",
            metavar="N",
            type=WholeNumber(min=1),
            help="How many processes share the model, whatever the number of shards.",
        ),
        click.option(
            "--max-seq-len",
            metavar="N",
            type=WholeNumber(min=1),
            help="How many tokens the prompt and its answer may have together.",
        ),
        click.option(
            "--max-batch-size",
            metavar="N",
            type=WholeNumber(min=1),
            help="How many prompts are answered at the same time.",
        ),
        JOIN_TIMEOUT,
        click.option(
            "--rope-factor",
            metavar="X",
            type=Number(min=1),
            help="How far RoPE is scaled.  [default: as the files say; in Llama 3.1 and later, "
            "which do not, 32 for the 3.2 1B and 3B, else 8]",
        ),
    )


def sampling_options(command: F) -> F:
    """Add the options that say how each token is chosen, and when to stop.

    The function gets ``max_new_tokens``, ``prompt_format``, ``seed``, and ``sampling``: a
    ``SamplingOptions``.
    """
    return _add(
        _gather(command, "sampling", SamplingOptions),
        click.option(
            "--sampler",
            cls=NameOption,
            registry="samplers",
            metavar="NAME",
            help="What chooses the next token.",
        ),
        click.option(
            "--sampler-option",
            "sampler_options",
            metavar="K=V",
            multiple=True,
            help="An option of the sampler; `llamakit plugins show NAME` lists them.",
        ),
        click.option(
            "--processor",
            "processors",
            cls=NameOption,
            registry="processors",
            metavar="NAME[:K=V,...]",
            multiple=True,
            help="What edits the logits first; several are applied in the order given.",
        ),
        click.option(
            "--temperature",
            metavar="T",
            type=Number(min=0),
            help="Higher is bolder; 0 always takes the most likely token.",
        ),
        click.option(
            "--top-p",
            metavar="P",
            type=Number(min=0, max=1),
            help="Choose among the most likely tokens that make up this much probability.",
        ),
        click.option(
            "--max-new-tokens",
            "--max-gen-len",
            "max_new_tokens",
            metavar="N",
            type=WholeNumber(min=1),
            help="How many tokens an answer may have.",
        ),
        PROMPT_FORMAT,
        click.option("--seed", metavar="N", type=Seed(), help="The same seed, the same answer."),
    )


def draft_option(command: F) -> F:
    """Add the option for speculative decoding. The function gets ``draft``, a string or None."""
    return _add(
        command,
        click.option(
            "--draft",
            cls=NameOption,
            registry="drafters",
            shell_complete=registered("drafters", or_folder=True),
            metavar="NAME[:K=V,...]|FOLDER",
            help="Speculative decoding: what drafts tokens, which the model checks several at a "
            "time; the answer stays the same. A folder is a smaller model with the same tokenizer.",
        ),
    )


def observer_options(command: F) -> F:
    """Add the options for observers. The function gets ``observers`` and ``observations``."""
    return _add(
        command,
        click.option(
            "--observer",
            "observers",
            cls=NameOption,
            registry="observers",
            metavar="NAME[:K=V,...]",
            multiple=True,
            help="What reads the hidden states; what it finds is in --json, --output and "
            "--observations.",
        ),
        click.option(
            "--observations",
            metavar="FOLDER",
            type=UserPath(),
            help="Write what observers find into this folder: INDEX.NAME.json for each answer, and "
            "files that they make, such as INDEX.NAME.svg. Files of these names are replaced.",
        ),
    )


def constraint_options(command: F) -> F:
    """Add the options for structured output (constrained decoding).

    They go below ``sampling_options``. The constraint becomes the first of the processors in the
    function's ``sampling``, so that the others edit only the tokens that it allows.
    """

    @wraps(command)
    def constrained(*args: Any, **options: Any) -> Any:
        values = {name: options.pop(name) for name in CONSTRAINTS}
        constraints = [
            Choice(name.replace("_", "-"), {CONSTRAINTS[name]: value})
            for name, value in values.items()
            if value is not None
        ]
        if len(constraints) > 1:
            first, second, *_ = constraints
            raise UsageError(f"--{first.name} and --{second.name}: choose one of the two")
        sampling: SamplingOptions = options.pop("sampling")
        sampling = replace(sampling, processors=(*constraints, *sampling.processors))
        return command(*args, sampling=sampling, **options)

    return _add(
        cast(F, constrained),
        click.option(
            "--json-schema",
            metavar="FILE",
            type=UserPath(),
            help="The answer is JSON that fits this schema.",
        ),
        click.option(
            "--regex", metavar="PATTERN", help="The whole answer matches this regular expression."
        ),
        click.option(
            "--grammar",
            metavar="FILE",
            type=UserPath(),
            help="The answer matches this grammar, in Lark's notation or GBNF.",
        ),
    )


def _gather(command: F, parameter: str, kind: type[LoadOptions | SamplingOptions]) -> F:
    """Pass several options to a function as one dataclass."""

    @wraps(command)
    def gathered(*args: Any, **options: Any) -> Any:
        values = {field.name: options.pop(field.name) for field in fields(kind)}
        return command(*args, **options, **{parameter: kind(**values)})

    return cast(F, gathered)


def _add(command: F, *options: Callable[[F], F]) -> F:
    """Apply option decorators so that ``--help`` shows them in the order given."""
    for option in reversed(options):
        command = option(command)
    return command
