"""``llamakit generate``: prompts in, answers out in their order, or into a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamakit.cli.answer_file import AnswerFile, check_names, name_of
from llamakit.cli.open_model import open_model, tokenizer_for_sampling
from llamakit.cli.options import (
    constraint_options,
    draft_option,
    model_options,
    sampling_options,
)
from llamakit.cli.terminal import answers_bar, note
from llamakit.llama.drafter_choice import choose_drafter, drafts_summary
from llamakit.llama.prompt_batch import Answer, PromptBatch
from llamakit.llama.prompts import Prompt, read_prompts
from llamakit.llama.sampler_choice import choose_sampling

if TYPE_CHECKING:
    from llamakit.api import Chunk, Llama
    from llamakit.plugin_manager.toolkit import Toolkit


@click.command()
@click.argument("prompt", nargs=-1)
@click.option(
    "--prompts",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE.jsonl",
    help='One prompt a line: {"prompt": "…"} or {"messages": […]}, with an "id" and a "seed" '
    "if you like; - is standard input.",
)
@model_options
@sampling_options
@constraint_options
@draft_option
@click.option("--stop", multiple=True, metavar="TEXT", help="End an answer at this text.")
@click.option("--echo", is_flag=True, help="Begin the answer with the prompt.")
@click.option(
    "--logprobs", is_flag=True, help="Log-probability of each id: in --json, else on stderr."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE.jsonl",
    help="Append the answers to this file as they end, one JSON object a line; prompts whose "
    "answers it holds are passed over, so the same command goes on where it was stopped.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object an answer, a line each.")
@click.pass_obj
def generate(toolkit: Toolkit, /, as_json: bool, **arguments: Any) -> None:
    """Continue a text.

    PROMPT is one text or several; - reads one from standard input. Without -m the embedded
    model answers. Answers go to standard output, everything else to standard error.

    \b
    llamakit generate "Once upon a time"
    llamakit generate -m llama-2-7b/ --temperature 0 "The capital of France is"
    llamakit generate -m llama-2-13b/ --prompts questions.jsonl --output answers.jsonl
    """
    import json

    for piece in complete(toolkit, as_json=as_json, **arguments):
        text = json.dumps(piece, ensure_ascii=False) + "\n" if as_json else piece
        click.echo(text, nl=False)


def complete(
    toolkit: Toolkit,
    *,
    prompt: Sequence[str],
    prompts: str | None,
    model: str | None,
    sampling: dict[str, Any],
    loading: dict[str, Any],
    prompt_format: str = "llama2",
    max_new_tokens: int | None = None,
    seed: int | None = None,
    stop: Sequence[str] = (),
    echo: bool = False,
    logprobs: bool = False,
    draft: str | None = None,
    output: str | None = None,
    as_json: bool = False,
) -> Iterator[str | dict[str, Any]]:
    """Answer prompts.

    Args:
        sampling: as ``choose_sampling``.
        loading: as ``Llama.open``.
        draft: as ``choose_drafter``.
        output: a file that the answers are appended to as they end; nothing is yielded then.
    Yields:
        Pieces of text to be written one behind the other, or with ``as_json`` one dict a prompt.
    """
    wanted = read_prompts(prompt, None if prompts is None else Path(prompts))
    tokenizer = tokenizer_for_sampling(
        toolkit,
        model,
        loading.get("tokenizer"),
        sampler=sampling.get("sampler"),
        processors=sampling.get("processors", ()),
    )
    chosen = choose_sampling(toolkit=toolkit, tokenizer=tokenizer, **sampling)
    if draft is not None:
        choose_drafter(draft, toolkit=toolkit)  # refuse what cannot be built first of all
    loading["max_batch_size"] = loading.get("max_batch_size") or min(len(wanted), 8)
    with contextlib.ExitStack() as stack:
        file = None
        if output is not None:
            file = stack.enter_context(AnswerFile(Path(output)))
            missing = _missing(file, wanted)
            if not missing:
                note(f"{output} holds all {len(wanted)} answers already")
                return
        llama = stack.enter_context(open_model(toolkit, model, **loading))
        chosen_format = llama.prompt_format(prompt_format)
        batch = PromptBatch(llama, wanted, chosen_format, seed)
        settings: dict[str, Any] = {
            "sampling": chosen,
            "max_new_tokens": max_new_tokens,
            "stop": [*stop, *getattr(chosen_format, "stop_strings", ())],
            "stop_tokens": batch.stop_tokens,
            "echo": echo,
            "logprobs": logprobs,
            "keep_space": getattr(chosen_format, "keeps_space", False),
            "draft": None if draft is None else llama.drafter(draft),
        }
        if file is not None:
            _write_to(file, llama, batch, missing, settings)
            return
        answers = [batch.answer(index, draft is not None) for index in range(len(wanted))]
        chunks = llama.stream(
            [answer.prompt_tokens for answer in answers],
            seeds=[answer.seed for answer in answers],
            **settings,
        )
        if as_json:
            for index, answer in enumerate(_in_order(answers, chunks)):
                yield answer.as_dict(index, logprobs)
        elif len(answers) == 1:
            yield from _as_written(answers[0], chunks)
        else:
            for answer in _in_order(answers, chunks):
                yield answer.text + "\n"
        if logprobs and not as_json:
            _show_logprobs(llama, answers)
        if not as_json and any(getattr(it, "is_constraint", False) for it in chosen.processors):
            _show_cut(answers)
        if draft is not None:
            drafted = sum(answer.drafted or 0 for answer in answers)
            note(drafts_summary(drafted, sum(answer.accepted for answer in answers)))


def _missing(file: AnswerFile, prompts: list[Prompt]) -> list[int]:
    """Say which prompts have no answer in a file yet."""
    check_names(prompts, file.path)
    return [
        index
        for index, prompt in enumerate(prompts)
        if not file.holds(name_of(prompt, index), prompt)
    ]


def _write_to(
    file: AnswerFile, llama: Llama, batch: PromptBatch, missing: list[int], settings: dict[str, Any]
) -> None:
    """Append the answers to some prompts to a file, each as it ends.

    Only the prompts being answered, and those next in turn, are held as ids.
    """
    longest = max(len(batch.encode(index)) for index in missing)
    writing: dict[int, Answer] = {}
    drafting = settings["draft"] is not None

    def asked() -> Iterator[list[int]]:
        for number, index in enumerate(missing):
            writing[number] = batch.answer(index, drafting)
            yield writing[number].prompt_tokens

    seeds = (batch.seed(index) for index in missing)
    there, drafted, accepted = len(file), 0, 0
    with answers_bar(len(missing)) as tally:
        for chunk in llama.stream(asked(), seeds=seeds, longest=longest, **settings):
            answer = writing[chunk.index]
            answer.add(chunk)
            tally.add(chunk.token is not None, chunk.finish is not None)
            if chunk.finish:
                index = missing[chunk.index]
                line = answer.as_dict(index, settings["logprobs"])
                file.append({"index": index, "id": name_of(answer.prompt, index), **line})
                drafted, accepted = drafted + chunk.drafted, accepted + chunk.accepted
                del writing[chunk.index]
    note(f"{tally.summary}" + (f"; {there} were in {file.path} already" if there else ""))
    if drafting:
        note(drafts_summary(drafted, accepted))


def _as_written(answer: Answer, chunks: Iterator[Chunk]) -> Iterator[str]:
    try:
        for chunk in chunks:
            answer.add(chunk)
            if chunk.text:
                yield chunk.text
    except Exception:
        if answer.text:  # what is said of the error begins a line of its own
            yield "\n"
        raise
    yield "\n"


def _in_order(answers: Sequence[Answer], chunks: Iterator[Chunk]) -> Iterator[Answer]:
    """Yield each answer when it and all before it have ended."""
    given = 0
    with answers_bar(len(answers)) as tally:
        for chunk in chunks:
            answers[chunk.index].add(chunk)
            tally.add(chunk.token is not None, chunk.finish is not None)
            while given < len(answers) and answers[given].finish:
                yield answers[given]
                given += 1


def _show_logprobs(llama: Llama, answers: Sequence[Answer]) -> None:
    for answer in answers:
        for token, logprob in zip(answer.tokens, answer.logprobs, strict=True):
            note(f"{logprob:9.4f}  {token:6}  {llama.tokenizer.decode([token])!r}")


def _show_cut(answers: Sequence[Answer]) -> None:
    """Say which answers ended before they had the form that they were to have."""
    for number, answer in enumerate(answers, start=1):
        if answer.finish == "length":
            which = "the answer" if len(answers) == 1 else f"answer {number}"
            note(
                f"{which} was cut after {len(answer.tokens)} tokens and is not whole: raise "
                "--max-new-tokens or --max-seq-len"
            )
