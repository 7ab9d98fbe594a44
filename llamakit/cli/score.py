"""``llamakit score``: the log-likelihood of strings, continuations and choices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamakit.cli.number_types import WholeNumber
from llamakit.cli.shared_options import model_options
from llamakit.cli.user_path import jsonl_option

if TYPE_CHECKING:
    from llamakit.cli.answer_file import AnswerFile
    from llamakit.cli.answer_stream import AnswerStream
    from llamakit.llama.options import LoadOptions
    from llamakit.llama.score_items import ScoreItem
    from llamakit.plugin_manager.toolkit import Toolkit


@click.command()
@click.argument("text", nargs=-1)
@jsonl_option(
    "--items",
    help='One a line: {"text": "…"}, {"context": "…", "continuation": "…"} or {"context": "…", '
    '"choices": ["…", "…"], "answer": 0}, with an "id" if you like; - is standard input.',
)
@model_options
@click.option(
    "--stride",
    metavar="N",
    type=WholeNumber(min=1),
    help="Past the context, score N tokens after as many as the context holds besides.  "
    "[default: the context]",
)
@jsonl_option(
    "--output",
    help="Append the scores to this file, one JSON object a line; items whose scores are in it are "
    "skipped, so the same command resumes where it was stopped.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object an item and one of all, a line each."
)
@click.pass_obj
def score(
    toolkit: Toolkit,
    /,
    text: tuple[str, ...],
    items: str | None,
    model: str | None,
    loading: LoadOptions,
    stride: int | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Say how likely a model finds strings.

    TEXT is one or several; - reads one from standard input. The last lines sum up: perplexity of
    texts and continuations, accuracy of choices.

    \b
    llamakit score -m llama-2-7b/ - < book.txt
    llamakit score -m llama-2-7b/ --quantize int4 - < book.txt
    llamakit score -m llama-2-7b/ --items questions.jsonl --output scores.jsonl --json
    """
    from llamakit import demo
    from llamakit.cli.provenance import model_record
    from llamakit.cli.terminal import json_text, note_unquoted
    from llamakit.llama.score_items import read_items
    from llamakit.llama.score_summary import summary

    note_unquoted(text)
    asked = read_items(text, None if items is None else Path(items))
    lines: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        file, record = None, {}
        if output is not None:
            record = model_record(toolkit, Path(model or demo.path()), loading)
            record |= {} if stride is None else {"stride": stride}
            file = _open(stack, Path(output), asked, record)
            lines = [{**line} for line in file.earlier]
        for line in _scores(toolkit, asked, file, record, model, loading, stride):
            lines.append(line)
            if file is None:
                click.echo(json_text(line) if as_json else _as_text(line))
    total = summary(lines)
    if as_json:
        click.echo(json_text({"summary": total}))
    else:
        for kind, numbers in total.items():
            click.echo(f"{kind}: " + ", ".join(f"{k} {_number(v)}" for k, v in numbers.items()))


def _open(
    stack: contextlib.ExitStack, path: Path, items: Sequence[ScoreItem], record: dict[str, Any]
) -> AnswerFile | AnswerStream:
    """Open the file of scores, and refuse one of another model or with other settings."""
    from llamakit.cli.answer_file import check_names
    from llamakit.cli.answer_stream import open_answers
    from llamakit.errors import FileFormatError
    from llamakit.llama.score_summary import summary

    check_names(items, path)  # a refusal leaves no empty file
    file = open_answers(path, keep=True)
    stack.enter_context(file)
    file.check_settings(record, "the same model and options")
    try:
        summary(file.earlier)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise FileFormatError(
            f"{path}: expected scores, as score --output writes them: pass another --output"
        ) from error
    return file


def _scores(
    toolkit: Toolkit,
    items: Sequence[ScoreItem],
    file: AnswerFile | AnswerStream | None,
    record: dict[str, Any],
    model: str | None,
    loading: LoadOptions,
    stride: int | None,
) -> Iterator[dict[str, Any]]:
    """Score the items that are not in the file yet, append them to it, and yield each as a dict."""
    from llamakit.cli.answer_file import name_of
    from llamakit.cli.open_model import open_model
    from llamakit.cli.terminal import answers_bar, note
    from llamakit.llama.score_summary import as_dict
    from llamakit.llama.scoring import score_numbered

    names = [name_of(item, index) for index, item in enumerate(items)]
    missing = [
        index
        for index, item in enumerate(items)
        if file is None or not file.has_answer(names[index], item)
    ]
    if not missing:
        note(f"{file.path if file else ''} has all {len(items)} scores already")
        return
    with (
        open_model(toolkit, model, loading.for_prompts()) as llama,
        answers_bar(len(missing)) as counter,
    ):
        scored = score_numbered(
            llama, ((index + 1, items[index]) for index in missing), stride=stride
        )
        for index, result in zip(missing, scored, strict=True):
            line = {"index": index, **as_dict(result)}
            counter.add(sum(it.tokens for it in result.scores), 1)
            if file is not None:
                own = {"id": names[index], "digest": items[index].digest, "settings": record}
                file.append({**line, **own})
            yield line


def _as_text(line: dict[str, Any]) -> str:
    """Return one item's scores as a line: its id or number, then what it is judged by."""
    name = line.get("id", line["index"])
    if line["kind"] != "choices":
        greedy = " greedy" if line["greedy"] and line["kind"] == "continuation" else ""
        return (
            f"{name}: {line['logprob']:.4f} in {line['tokens']} tokens, perplexity "
            f"{_number(line['perplexity'])}{greedy}"
        )
    verdict = ""
    if "correct" in line:
        verdict = " right" if line["correct"] else " wrong"
    scores = " ".join(f"{choice['logprob']:.4f}" for choice in line["choices"])
    return f"{name}: choice {line['best']}{verdict} of {scores}"


def _number(value: float | int | None) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
