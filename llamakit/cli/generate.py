"""``llamakit generate``: answers prompts, in their order or into a file."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamakit import demo
from llamakit.cli.answer_file import AnswerFile, check_names, name_of
from llamakit.cli.answer_stream import AnswerStream, open_answers
from llamakit.cli.generate_options import GenerateOptions
from llamakit.cli.observation_folder import check_destination, written
from llamakit.cli.open_model import check_choices, check_observers, open_model
from llamakit.cli.part_option import Part, PartType
from llamakit.cli.prompt_groups import Group, chunks_of, group_prompts
from llamakit.cli.provenance import provenance
from llamakit.cli.shared_options import (
    constraint_options,
    draft_option,
    model_options,
    observer_options,
    sampling_options,
)
from llamakit.cli.terminal import answers_bar, json_text, note, note_unquoted, whole_lines
from llamakit.cli.user_path import jsonl_option
from llamakit.llama.drafter_choice import drafts_summary
from llamakit.llama.openai_batch_output import response_line
from llamakit.llama.prompt_batch import Answer, PromptBatch
from llamakit.llama.prompt_checks import check_unicode
from llamakit.llama.prompts import Prompt, read_prompts

if TYPE_CHECKING:
    from llamakit.api import Chunk, Llama
    from llamakit.plugin_manager.toolkit import Toolkit
    from llamakit.protocols import PromptFormat


@click.command()
@click.argument("prompt", nargs=-1)
@jsonl_option(
    "--prompts",
    help='One prompt a line: {"prompt": "…"} or {"messages": […]}, with an "id" and a "seed" '
    "if you like, or as in OpenAI's batch files; - is standard input.",
)
@model_options
@sampling_options
@constraint_options
@draft_option
@observer_options
@click.option("--stop", multiple=True, metavar="TEXT", help="End an answer at this string.")
@click.option("--echo", is_flag=True, help="Begin the answer with the prompt.")
@click.option(
    "--logprobs", is_flag=True, help="Log-probability of each token: in --json, else on stderr."
)
@jsonl_option(
    "--output",
    help="Append the answers to this file as they end, one JSON object a line; prompts whose "
    "answers are in it are skipped, so the same command resumes where it was stopped.",
)
@click.option(
    "--mixed",
    is_flag=True,
    help="Append to --output although another model or other settings made what is in it.",
)
@click.option(
    "--part",
    type=PartType(),
    help="Answer every N-th prompt, from the I-th on: 1/N to N/N are all of them, each once, for "
    "the tasks of a Slurm array or a Kubernetes job; join-answers puts their files together.",
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
    note_unquoted(arguments["prompt"])
    pieces = complete(toolkit, GenerateOptions(**arguments), as_json=as_json)
    with whole_lines() as write:
        for piece in pieces:
            write(piece if isinstance(piece, str) else json_text(piece) + "\n")


def complete(
    toolkit: Toolkit, options: GenerateOptions, *, as_json: bool
) -> Iterator[str | dict[str, Any]]:
    """Answer prompts.

    Yields:
        Pieces of text to be written one after the other, or with ``as_json`` one dict a prompt;
        nothing where the answers go to a file.
    """
    for text in options.stop:
        check_unicode(text, "--stop")
    check_destination(options, as_json=as_json)
    prompts = read_prompts(
        options.prompt, None if options.prompts is None else Path(options.prompts)
    )
    file: AnswerFile | AnswerStream | None = None
    wanted: Sequence[int] = (options.part or Part(1, 1)).indexes(len(prompts))
    missing = wanted
    with contextlib.ExitStack() as stack:
        record: dict[str, Any] = {}
        if options.output is not None:
            file = open_answers(Path(options.output))
            stack.enter_context(file)
            record = provenance(toolkit, Path(options.model or demo.path()), options)
            missing = _missing(file, prompts, wanted, None if options.mixed else record)
        if not wanted:
            note(f"part {options.part} of {len(prompts)} prompts has none")
            return
        if not missing:
            note(f"{options.output} has all {len(wanted)} answers already")
            return
        tokenizer = options.loading.tokenizer
        groups = group_prompts(
            prompts,
            missing,
            options.sampling,
            lambda it: check_choices(toolkit, options.model, tokenizer, it, options.draft),
        )
        check_observers(toolkit, options.model, tokenizer, options.observers)
        loading = options.loading.for_prompts(len(missing))
        llama = stack.enter_context(open_model(toolkit, options.model, loading))
        prompt_format = llama.prompt_format(options.prompt_format)
        observers = llama.observers(options.observers)
        batch = PromptBatch(llama, prompts, prompt_format, options.seed, observers)
        common = _common_settings(llama, options, prompt_format, batch)
        answers: dict[int, Answer] = {}

        def prompt_tokens(index: int) -> list[int]:
            answers[index] = batch.answer(index, options.draft is not None)
            return answers[index].prompt_tokens

        # A wrong one is refused before anything is computed.
        lengths = {index: len(batch.encode(index)) for index in missing}
        on_disk = None if file is None else lengths
        chunks = chunks_of(llama, groups, batch, prompt_tokens, common, on_disk)
        if options.observations is not None:
            chunks = written(chunks, observers, Path(options.observations))
        if file is not None:
            _write_to(file, chunks, answers, len(missing), record)
        else:
            yield from _printed(llama, chunks, answers, groups, options, as_json=as_json)


def _common_settings(
    llama: Llama, options: GenerateOptions, prompt_format: PromptFormat, batch: PromptBatch
) -> dict[str, Any]:
    """Return the keyword arguments of ``Llama.stream`` that all prompts have."""
    return {
        "max_new_tokens": options.max_new_tokens,
        "stop": [*options.stop, *getattr(prompt_format, "stop_strings", ())],
        "stop_tokens": batch.stop_tokens,
        "echo": options.echo,
        "logprobs": options.logprobs,
        "keep_space": getattr(prompt_format, "keeps_space", False),
        "draft": None if options.draft is None else llama.drafter(options.draft),
        "observers": batch.observers,
    }


def _printed(
    llama: Llama,
    chunks: Iterator[Chunk],
    answers: Mapping[int, Answer],
    groups: Sequence[Group],
    options: GenerateOptions,
    *,
    as_json: bool,
) -> Iterator[str | dict[str, Any]]:
    """Yield answers as they are printed; the notes go to standard error."""
    indexes = sorted(index for group in groups for index in group.indexes)
    if as_json:
        for index in _in_order(indexes, answers, chunks):
            yield _line(answers[index], index, options.logprobs, llama.checkpoint.path.name)
    elif len(indexes) == 1:
        yield from _pieces(answers, chunks)
    else:
        for index in _in_order(indexes, answers, chunks):
            yield answers[index].text + "\n"
    in_order = [answers[index] for index in sorted(answers)]
    if options.logprobs and not as_json:
        _print_logprobs(llama, in_order)
    if not as_json and any(group.settings["sampling"].is_constrained for group in groups):
        _note_incomplete(in_order)
    if options.draft is not None:
        drafted = sum(answer.drafted or 0 for answer in in_order)
        note(drafts_summary(drafted, sum(answer.accepted for answer in in_order)))


def _line(answer: Answer, index: int, logprobs: bool, model: str) -> dict[str, Any]:
    """Return an answer as ``--json`` prints it: to a line of OpenAI's batches, as OpenAI has it."""
    own = answer.prompt.own
    return answer.as_dict(index, logprobs) if own is None else response_line(answer, model)


def _missing(
    file: AnswerFile | AnswerStream,
    prompts: list[Prompt],
    wanted: Sequence[int],
    record: Mapping[str, Any] | None,
) -> Sequence[int]:
    """Return the indexes of the prompts whose answers are not in a file yet.

    Args:
        wanted: the indexes of those that it is to have.
        record: what makes the answers to come, as ``provenance`` says; None: others may be there.
    """
    check_names(prompts, file.path)
    if record is not None:
        file.check_settings(record)
    return [
        index
        for index in wanted
        if not file.has_answer(name_of(prompts[index], index), prompts[index])
    ]


def _write_to(
    file: AnswerFile | AnswerStream,
    chunks: Iterator[Chunk],
    answers: dict[int, Answer],
    count: int,
    record: Mapping[str, Any],
) -> None:
    """Append answers to a file, each as it ends."""
    earlier, drafted, accepted, drafting = len(file), 0, 0, False
    with answers_bar(count) as counter:
        for chunk in chunks:
            answer = answers[chunk.index]
            answer.add(chunk)
            counter.add(chunk.token is not None, chunk.finish is not None)
            if chunk.finish:
                file.append(_recorded(answer, chunk.index, record))
                drafting = answer.drafted is not None
                drafted, accepted = drafted + chunk.drafted, accepted + chunk.accepted
                del answers[chunk.index]
    note(f"{counter.summary}" + (f"; {earlier} were in {file.path} already" if earlier else ""))
    if drafting:
        note(drafts_summary(drafted, accepted))


def _recorded(answer: Answer, index: int, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line of an answer in a file, which says what made it."""
    prompt, name = answer.prompt, name_of(answer.prompt, index)
    line = _line(answer, index, bool(record.get("logprobs")), record["model"])
    if prompt.own is None:
        return {"index": index, "id": name, **line, "settings": record}
    made = {"index": index, "digest": prompt.digest, "seed": answer.seed, "settings": record}
    return {**line, "custom_id": name, "llamakit": {**line.get("llamakit", {}), **made}}


def _pieces(answers: Mapping[int, Answer], chunks: Iterator[Chunk]) -> Iterator[str]:
    for chunk in chunks:
        answers[chunk.index].add(chunk)
        if chunk.text:
            yield chunk.text
    yield "\n"


def _in_order(
    indexes: Sequence[int], answers: Mapping[int, Answer], chunks: Iterator[Chunk]
) -> Iterator[int]:
    """Yield the index of each answer when it and all before it have ended."""
    left = deque(indexes)
    with answers_bar(len(indexes)) as counter:
        for chunk in chunks:
            answers[chunk.index].add(chunk)
            counter.add(chunk.token is not None, chunk.finish is not None)
            while left and left[0] in answers and answers[left[0]].finish:
                yield left.popleft()


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
