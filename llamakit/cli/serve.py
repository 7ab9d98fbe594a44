"""``llamakit serve``: a model on the network and in the browser."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamakit.cli.number_types import Number, WholeNumber
from llamakit.cli.open_model import check_choices, open_model
from llamakit.cli.shared_options import draft_option, model_options, sampling_options
from llamakit.cli.terminal import note
from llamakit.cli.user_path import UserPath
from llamakit.errors import MissingExtraError
from llamakit.serve.access import allowed_hosts, check_auth, read_keys

if TYPE_CHECKING:
    from llamakit.llama.options import LoadOptions, SamplingOptions
    from llamakit.plugin_manager.toolkit import Toolkit
    from llamakit.serve.server_settings import ServeSettings

SLOTS = 8


@click.command()
@model_options
@sampling_options
@draft_option
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen; any address but this machine's own needs a key.",
)
@click.option(
    "--port",
    metavar="N",
    type=WholeNumber(0, 65535),
    default=8000,
    show_default=True,
    help="The port; 0 takes any that is free.",
)
@click.option(
    "--slots",
    metavar="N",
    type=WholeNumber(min=1),
    help="How many answers are generated at the same time; each has memory for --max-seq-len "
    "tokens. The same as --max-batch-size.  [default: 8]",
)
@click.option(
    "--prefix-cache",
    metavar="MB",
    type=WholeNumber(min=0),
    default=512,
    show_default=True,
    help="Memory for the prefixes of conversations that have lost their slot to another; the least "
    "recently used make room. 0 keeps none.",
)
@click.option("--model-name", metavar="NAME", help="What clients call it.  [default: its folder]")
@click.option(
    "--api-key-file",
    metavar="FILE",
    type=UserPath(),
    help="Require an API key; the file has one a line. LLAMAKIT_API_KEY is a single one.",
)
@click.option("--no-auth", is_flag=True, help="Require no API key, whatever the address.")
@click.option(
    "--allowed-host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="Another name that requests may use in their Host header.",
)
@click.option(
    "--cors-origin",
    "origins",
    metavar="URL",
    multiple=True,
    help="Allow requests from web pages of this origin.  [default: none]",
)
@click.option(
    "--queue",
    metavar="N",
    type=WholeNumber(min=0),
    default=256,
    show_default=True,
    help="How many answers may wait for a slot; requests beyond that get 429.",
)
@click.option(
    "--max-choices",
    metavar="N",
    type=WholeNumber(min=1),
    default=128,
    show_default=True,
    help="How many answers one request may ask for: prompts times n.",
)
@click.option(
    "--max-answer",
    metavar="N",
    type=WholeNumber(min=1),
    help="How many tokens an answer may have, whatever a request says.  [default: the context]",
)
@click.option(
    "--max-body",
    metavar="BYTES",
    type=WholeNumber(min=1),
    default=1 << 20,
    show_default=True,
    help="How long a request may be.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=Number(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="How long an answer may take, waiting included.",
)
@click.option(
    "--arrival",
    metavar="SECONDS",
    type=Number(min=0, min_open=True),
    default=20.0,
    show_default=True,
    help="How long a request may take to arrive.",
)
@click.option(
    "--connections",
    metavar="N",
    type=WholeNumber(min=1),
    default=256,
    show_default=True,
    help="How many connections may be open.",
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=Number(min=0),
    default=30.0,
    show_default=True,
    help="How long answers may continue after SIGTERM or Ctrl-C.",
)
@click.option(
    "--unknown-fields",
    type=click.Choice(["refuse", "warn", "ignore"]),
    default="refuse",
    show_default=True,
    help="What happens to fields of a request that are unknown or not offered here, and may change "
    "an answer: a 400, a note in the log, or nothing. Fields that cannot are ignored always.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the log is written: key=value, or one JSON object a line.",
)
@click.option("--json-log", is_flag=True, hidden=True, help="The same as --log-format json.")
@click.option("--log-prompts", is_flag=True, help="Log prompts and answers as well.")
@click.pass_obj
def serve(toolkit: Toolkit, /, **arguments: Any) -> None:
    """Serve a model to OpenAI's clients and to a browser.

    Without -m the bundled demo model answers. The API is at /v1, a chat page at /. One line a
    request goes to standard error; Ctrl-C ends the server.

    \b
    llamakit serve
    llamakit serve -m llama-2-7b-chat/ --slots 16 --max-seq-len 4096
    LLAMAKIT_API_KEY=… llamakit serve -m llama-2-7b-chat/ --host 0.0.0.0
    """
    run(toolkit, ServeOptions(**arguments))


@dataclass(frozen=True)
class ServeOptions:
    """The options of ``llamakit serve``, under the names of its parameters.

    Args:
        model: its folder; None is the bundled demo model.
        draft: as ``choose_drafter``.
        hosts, origins: of --allowed-host and --cors-origin.
        queue: how many answers may wait for a slot.
        max_body, max_answer, max_choices: bytes, tokens and answers of a request.
        timeout, arrival, grace: in seconds.
    """

    model: str | None
    loading: LoadOptions
    sampling: SamplingOptions
    max_new_tokens: int | None
    prompt_format: str | None
    seed: int | None
    draft: str | None
    host: str
    port: int
    slots: int | None
    prefix_cache: int
    model_name: str | None
    api_key_file: str | None
    no_auth: bool
    hosts: Sequence[str]
    origins: Sequence[str]
    queue: int
    max_choices: int
    max_answer: int | None
    max_body: int
    timeout: float
    arrival: float
    connections: int
    grace: float
    unknown_fields: str
    log_format: str
    json_log: bool
    log_prompts: bool

    @property
    def as_json(self) -> bool:
        """Whether each line of the log is a JSON object."""
        return self.json_log or self.log_format == "json"

    def server_settings(self, host: str, keys: tuple[str, ...]) -> ServeSettings:
        """Return what the server itself needs of them."""
        from llamakit.serve.schema_validation import Unknown
        from llamakit.serve.server_settings import Limits, ServeSettings

        return ServeSettings(
            host=host,
            port=self.port,
            model_name=self.model_name or _name(self.model),
            keys=() if self.no_auth else keys,
            origins=tuple(self.origins),
            hosts=allowed_hosts(host, self.hosts),
            grace=self.grace,
            sampling=self.sampling.as_arguments(),
            prompt_format=self.prompt_format,
            new_tokens=self.max_new_tokens,
            seed=self.seed,
            json_log=self.as_json,
            log_prompts=self.log_prompts,
            unknown_fields=Unknown(self.unknown_fields),
            limits=Limits(
                body=self.max_body,
                choices=self.max_choices,
                new_tokens=self.max_answer,
                seconds=self.timeout,
                waiting=self.queue,
                connections=self.connections,
                arrival=self.arrival,
                prefix_cache=self.prefix_cache * 1_000_000,
            ),
        )


def run(toolkit: Toolkit, options: ServeOptions) -> None:
    """Serve a model until SIGTERM or Ctrl-C.

    Raises:
        UsageError: the extra ``serve`` is not installed, a key is missing, or the address is
            taken.
    """
    host = options.host.removeprefix("[").removesuffix("]")  # as in a URL
    keys = read_keys(options.api_key_file)
    check_auth(host, keys, no_auth=options.no_auth)
    check_extra()
    from llamakit.serve import server
    from llamakit.serve.request_log import write_event

    model, loading = options.model, options.loading
    listener = server.listen(host, options.port)
    check_choices(toolkit, model, loading.tokenizer, options.sampling, options.draft)
    slots = options.slots or loading.max_batch_size or SLOTS
    settings = options.server_settings(host, keys)
    with open_model(toolkit, model, replace(loading, max_batch_size=slots)) as llama:
        llama.prompt_format(options.prompt_format)  # refuse a wrong one before serving
        if options.draft is not None:
            settings = replace(settings, drafter=llama.drafter(options.draft))
        say = write_event if options.as_json else note

        def ready(url: str) -> None:
            gc.collect()
            gc.freeze()  # what is there now stays: a search for garbage in it stops everybody
            say(f"serving at {url}")

        server.Server(llama, settings, listener).run(ready)


def check_extra() -> None:
    """Check that the packages of the extra ``serve`` are installed.

    Raises:
        MissingExtraError: one is missing.
    """
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("llamakit serve", error.name, "serve") from error


def _name(model: str | None) -> str:
    from llamakit import demo

    return (demo.path() if model is None else Path(model)).resolve().name
