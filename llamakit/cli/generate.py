"""``llamakit generate``: answers prompts, in their order or into a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamakit import demo
from llamakit.cli.answer_file import AnswerFile, check_names, name_of
from llamakit.cli.answer_job import plan_job
from llamakit.cli.answer_stream import AnswerStream, open_answers
from llamakit.cli.generate_options import GenerateOptions
from llamakit.cli.observation_folder import check_destination, written
from llamakit.cli.open_model import check_observers, load_model_tokenizer
from llamakit.cli.part_option import Part, PartType
from llamakit.cli.printed_answers import answer_line, printed
from llamakit.cli.provenance import provenance
from llamakit.cli.runner_options import ChosenRunner, output_file, runner_options
from llamakit.cli.shared_options import (
    constraint_options,
    draft_option,
    model_options,
    observer_options,
    sampling_options,
)
from llamakit.cli.terminal import answers_bar, json_text, note, note_unquoted, whole_lines
from llamakit.cli.user_path import UserPath, jsonl_option
from llamakit.llama.answer_requests import with_seeds
from llamakit.llama.drafter_choice import drafts_summary
from llamakit.llama.prompt_batch import Answer
from llamakit.llama.prompt_checks import check_unicode
from llamakit.llama.prompts import Prompt, read_prompts

if TYPE_CHECKING:
    from llamakit.plugin_manager.toolkit import Toolkit
    from llamakit.protocols import AnswerPiece


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
@click.option(
    "--output",
    type=UserPath(allow_dash=True),
    metavar="FILE.jsonl|FOLDER/",
    help="Append the answers to this file, or to answers.jsonl in this folder, as they end, one "
    "JSON object a line; prompts whose answers are in it are skipped, so the same command resumes "
    "where it was stopped.",
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
@runner_options
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
    runner = ChosenRunner(toolkit, options.on)
    prompts = _read_prompts(options, runner)
    model = Path(options.model or demo.path())
    file: AnswerFile | AnswerStream | None = None
    wanted: Sequence[int] = (options.part or Part(1, 1)).indexes(len(prompts))
    missing = wanted
    with contextlib.ExitStack() as stack:
        record: dict[str, Any] = {}
        if options.output is not None:
            check_names(prompts, Path(options.output))  # a refusal leaves no empty file
            record = provenance(toolkit, model, options)
            path = stack.enter_context(output_file(options.output))
            file = open_answers(path)
            stack.enter_context(file)
            missing = _missing(file, prompts, wanted, None if options.mixed else record)
        if not wanted:
            note(f"part {options.part} of {len(prompts)} prompts has none")
            return
        if not missing:
            note(f"{options.output} has all {len(wanted)} answers already")
            return
        prompts = with_seeds(prompts, options.seed)
        job, groups = plan_job(toolkit, options, prompts, missing, runner.address)
        observers = check_observers(
            toolkit, options.model, options.loading.tokenizer, options.observers
        )
        pieces = runner.run(job, missing)
        if options.observations is not None:
            pieces = written(pieces, observers, Path(options.observations))
        if file is not None:
            _write_to(file, pieces, prompts, len(missing), record)
        else:
            answers = yield from printed(
                pieces, prompts, missing, options, model.resolve().name, as_json=as_json
            )
            if not as_json:
                _print_notes(toolkit, answers, options, is_constrained=groups.is_constrained)
            if options.draft is not None:
                drafted = sum(answer.drafted or 0 for answer in answers)
                note(drafts_summary(drafted, sum(answer.accepted for answer in answers)))


def _read_prompts(options: GenerateOptions, runner: ChosenRunner) -> list[Prompt]:
    """Collect the prompts of arguments and of the file, which the runner may read."""
    file = options.prompts
    if file is None or file == "-" or not runner.reads_prompts:
        return read_prompts(options.prompt, None if file is None else Path(file))
    prompts = read_prompts(options.prompt, None) if options.prompt else []
    return [*prompts, *runner.read_prompts(file)]


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
    if record is not None:
        file.check_settings(record)
    return [
        index
        for index in wanted
        if not file.has_answer(name_of(prompts[index], index), prompts[index])
    ]


def _write_to(
    file: AnswerFile | AnswerStream,
    pieces: Iterator[AnswerPiece],
    prompts: list[Prompt],
    count: int,
    record: Mapping[str, Any],
) -> None:
    """Append answers to a file, each as it ends."""
    earlier, drafted, accepted, drafting = len(file), 0, 0, False
    with answers_bar(count) as counter:
        for piece in pieces:
            counter.add(piece.tokens, piece.answer is not None)
            if piece.answer is not None:
                answer = Answer(prompts[piece.index], **piece.answer)
                file.append(_recorded(answer, piece.index, record))
                drafting = answer.drafted is not None
                drafted, accepted = drafted + (answer.drafted or 0), accepted + answer.accepted
    note(f"{counter.summary}" + (f"; {earlier} were in {file.path} already" if earlier else ""))
    if drafting:
        note(drafts_summary(drafted, accepted))


def _recorded(answer: Answer, index: int, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line of an answer in a file, which says what made it."""
    prompt, name = answer.prompt, name_of(answer.prompt, index)
    line = answer_line(answer, index, bool(record.get("logprobs")), record["model"])
    if prompt.own is None:
        return {"index": index, "id": name, **line, "settings": record}
    made = {"index": index, "digest": prompt.digest, "seed": answer.seed, "settings": record}
    return {**line, "custom_id": name, "llamakit": {**line.get("llamakit", {}), **made}}


def _print_notes(
    toolkit: Toolkit, answers: list[Answer], options: GenerateOptions, *, is_constrained: bool
) -> None:
    """Print what standard output has not: to standard error."""
    if options.logprobs:
        tokenizer = load_model_tokenizer(toolkit, options.model, options.loading.tokenizer)
        for answer in answers:
            for token, logprob in zip(answer.tokens, answer.logprobs, strict=True):
                note(f"{logprob:9.4f}  {token:6}  {tokenizer.decode([token])!r}")
    if is_constrained:
        _note_incomplete(answers)


def _note_incomplete(answers: list[Answer]) -> None:
    """Say which constrained answers reached the token limit before they were complete."""
    for number, answer in enumerate(answers, start=1):
        if answer.finish == "length":
            which = "the answer" if len(answers) == 1 else f"answer {number}"
            note(
                f"{which} stopped after {len(answer.tokens)} tokens and is incomplete: raise "
                "--max-new-tokens or --max-seq-len"
            )
