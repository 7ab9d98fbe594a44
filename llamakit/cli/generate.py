"""``llamakit generate``: answers prompts, in their order or into a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamakit.cli.answer_file import AnswerFile, check_names, name_of
from llamakit.cli.open_model import check_choices, open_model
from llamakit.cli.shared_options import (
    constraint_options,
    draft_option,
    model_options,
    sampling_options,
)
from llamakit.cli.terminal import answers_bar, json_text, note
from llamakit.cli.user_path import UserPath
from llamakit.llama.drafter_choice import drafts_summary
from llamakit.llama.prompt_batch import Answer, PromptBatch
from llamakit.llama.prompts import Prompt, read_prompts

if TYPE_CHECKING:
    from llamakit.api import Chunk, Llama
    from llamakit.llama.options import LoadOptions, SamplingOptions
    from llamakit.plugin_manager.toolkit import Toolkit


@click.command()
@click.argument("prompt", nargs=-1)
@click.option(
    "--prompts",
    type=UserPath(dir_okay=False, allow_dash=True),
    metavar="FILE.jsonl",
    help='One prompt a line: {"prompt": "…"} or {"messages": […]}, with an "id" and a "seed" '
    "if you like; - is standard input.",
)
@model_options
@sampling_options
@constraint_options
@draft_option
@click.option("--stop", multiple=True, metavar="TEXT", help="End an answer at this string.")
@click.option("--echo", is_flag=True, help="Begin the answer with the prompt.")
@click.option(
    "--logprobs", is_flag=True, help="Log-probability of each token: in --json, else on stderr."
)
@click.option(
    "--output",
    type=UserPath(dir_okay=False),
    metavar="FILE.jsonl",
    help="Append the answers to this file as they end, one JSON object a line; prompts whose "
    "answers are in it are skipped, so the same command resumes where it was stopped.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object an answer, a line each.")
@click.pass_obj
def generate(toolkit: Toolkit, /, as_json: bool, **arguments: Any) -> None:
    """Continue a prompt.

    PROMPT is one or several; - reads one from standard input. Without -m the bundled demo model
    answers. Answers go to standard output, everything else to standard error.

    \b
    llamakit generate "Once upon a time"
    llamakit generate -m llama-2-7b/ --temperature 0 "The capital of France is"
    llamakit generate -m llama-2-13b/ --prompts questions.jsonl --output answers.jsonl
    """
    for piece in complete(toolkit, GenerateOptions(**arguments), as_json=as_json):
        text = json_text(piece) + "\n" if as_json else piece
        click.echo(text, nl=False)


@dataclass(frozen=True)
class GenerateOptions:
    """The options of ``llamakit generate``.

    Args:
        prompt: strings, ``-`` is standard input.
        prompts: a JSON Lines file of prompts.
        model: its folder; None is the bundled demo model.
        seed: None takes any.
        stop: strings that end an answer.
        draft: as ``choose_drafter``.
        output: a file that the answers are appended to as they end.
    """

    prompt: Sequence[str]
    prompts: str | None
    model: str | None
    loading: LoadOptions
    sampling: SamplingOptions
    prompt_format: str | None
    max_new_tokens: int | None
    seed: int | None
    stop: Sequence[str]
    echo: bool
    logprobs: bool
    draft: str | None
    output: str | None


def complete(
    toolkit: Toolkit, options: GenerateOptions, *, as_json: bool
) -> Iterator[str | dict[str, Any]]:
    """Answer prompts.

    Yields:
        Pieces of text to be written one after the other, or with ``as_json`` one dict a prompt;
        nothing where the answers go to a file.
    """
    prompts = read_prompts(
        options.prompt, None if options.prompts is None else Path(options.prompts)
    )
    tokenizer = options.loading.tokenizer
    sampling = check_choices(toolkit, options.model, tokenizer, options.sampling, options.draft)
    batch_size = options.loading.max_batch_size or min(len(prompts), 8)
    with contextlib.ExitStack() as stack:
        file, missing = None, list(range(len(prompts)))
        if options.output is not None:
            file = stack.enter_context(AnswerFile(Path(options.output)))
            missing = _missing(file, prompts)
            if not missing:
                note(f"{options.output} has all {len(prompts)} answers already")
                return
        loading = replace(options.loading, max_batch_size=batch_size)
        llama = stack.enter_context(open_model(toolkit, options.model, loading))
        prompt_format = llama.prompt_format(options.prompt_format)
        batch = PromptBatch(llama, prompts, prompt_format, options.seed)
        settings: dict[str, Any] = {
            "sampling": sampling,
            "max_new_tokens": options.max_new_tokens,
            "stop": [*options.stop, *getattr(prompt_format, "stop_strings", ())],
            "stop_tokens": batch.stop_tokens,
            "echo": options.echo,
            "logprobs": options.logprobs,
            "keep_space": getattr(prompt_format, "keeps_space", False),
            "draft": None if options.draft is None else llama.drafter(options.draft),
        }
        if file is not None:
            _write_to(file, llama, batch, missing, settings)
            return
        answers = [batch.answer(index, options.draft is not None) for index in missing]
        yield from _printed(llama, answers, settings, as_json=as_json)


def _printed(
    llama: Llama, answers: list[Answer], settings: dict[str, Any], *, as_json: bool
) -> Iterator[str | dict[str, Any]]:
    """Generate answers and yield them as they are printed; the notes go to standard error."""
    logprobs: bool = settings["logprobs"]
    chunks = llama.stream(
        [answer.prompt_tokens for answer in answers],
        seeds=[answer.seed for answer in answers],
        **settings,
    )
    if as_json:
        for index, answer in enumerate(_in_order(answers, chunks)):
            yield answer.as_dict(index, logprobs)
    elif len(answers) == 1:
        yield from _pieces(answers[0], chunks)
    else:
        for answer in _in_order(answers, chunks):
            yield answer.text + "\n"
    if logprobs and not as_json:
        _print_logprobs(llama, answers)
    processors = settings["sampling"].processors
    if not as_json and any(getattr(processor, "is_constraint", False) for processor in processors):
        _note_incomplete(answers)
    if settings["draft"] is not None:
        drafted = sum(answer.drafted or 0 for answer in answers)
        note(drafts_summary(drafted, sum(answer.accepted for answer in answers)))


def _missing(file: AnswerFile, prompts: list[Prompt]) -> list[int]:
    """Return the indexes of the prompts whose answers are not in a file yet."""
    check_names(prompts, file.path)
    return [
        index
        for index, prompt in enumerate(prompts)
        if not file.has_answer(name_of(prompt, index), prompt)
    ]


def _write_to(
    file: AnswerFile, llama: Llama, batch: PromptBatch, missing: list[int], settings: dict[str, Any]
) -> None:
    """Append the answers to some prompts to a file, each as it ends.

    Only the prompts being answered, and the next few, are in memory as tokens.
    """
    longest = max(len(batch.encode(index)) for index in missing)
    writing: dict[int, Answer] = {}
    drafting = settings["draft"] is not None

    def prompt_tokens() -> Iterator[list[int]]:
        for number, index in enumerate(missing):
            writing[number] = batch.answer(index, drafting)
            yield writing[number].prompt_tokens

    seeds = (batch.seed(index) for index in missing)
    earlier, drafted, accepted = len(file), 0, 0
    with answers_bar(len(missing)) as counter:
        for chunk in llama.stream(prompt_tokens(), seeds=seeds, longest=longest, **settings):
            answer = writing[chunk.index]
            answer.add(chunk)
            counter.add(chunk.token is not None, chunk.finish is not None)
            if chunk.finish:
                index = missing[chunk.index]
                line = answer.as_dict(index, settings["logprobs"])
                file.append({"index": index, "id": name_of(answer.prompt, index), **line})
                drafted, accepted = drafted + chunk.drafted, accepted + chunk.accepted
                del writing[chunk.index]
    note(f"{counter.summary}" + (f"; {earlier} were in {file.path} already" if earlier else ""))
    if drafting:
        note(drafts_summary(drafted, accepted))


def _pieces(answer: Answer, chunks: Iterator[Chunk]) -> Iterator[str]:
    try:
        for chunk in chunks:
            answer.add(chunk)
            if chunk.text:
                yield chunk.text
    except Exception:
        if answer.text:  # so that the error message begins a new line
            yield "\n"
        raise
    yield "\n"


def _in_order(answers: Sequence[Answer], chunks: Iterator[Chunk]) -> Iterator[Answer]:
    """Yield each answer when it and all before it have ended."""
    yielded = 0
    with answers_bar(len(answers)) as counter:
        for chunk in chunks:
            answers[chunk.index].add(chunk)
            counter.add(chunk.token is not None, chunk.finish is not None)
            while yielded < len(answers) and answers[yielded].finish:
                yield answers[yielded]
                yielded += 1


def _print_logprobs(llama: Llama, answers: Sequence[Answer]) -> None:
    for answer in answers:
        for token, logprob in zip(answer.tokens, answer.logprobs, strict=True):
            note(f"{logprob:9.4f}  {token:6}  {llama.tokenizer.decode([token])!r}")


def _note_incomplete(answers: Sequence[Answer]) -> None:
    """Say which constrained answers reached the token limit before they were complete."""
    for number, answer in enumerate(answers, start=1):
        if answer.finish == "length":
            which = "the answer" if len(answers) == 1 else f"answer {number}"
            note(
                f"{which} stopped after {len(answer.tokens)} tokens and is incomplete: raise "
                "--max-new-tokens or --max-seq-len"
            )
