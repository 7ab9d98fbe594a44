"""``llamakit join-answers``: puts the files of ``generate --part`` together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamakit.cli.terminal import json_text, note
from llamakit.cli.user_path import UserPath, jsonl_option
from llamakit.errors import DestinationError, UsageError

if TYPE_CHECKING:
    from llamakit.cli.answer_join import AnswerJoin


@click.command("join-answers")
@click.argument("parts", nargs=-1, required=True, type=UserPath(dir_okay=False))
@jsonl_option(
    "--output",
    required=True,
    help="Write the answers there when all of them are known to be good; - is standard output. "
    "A file of answers is replaced, another one is not.",
)
@jsonl_option(
    "--prompts",
    help="The questions: each has to have its answer, and they come in this order. Without it, "
    "answers missing after the last one are not noticed.",
)
@click.option(
    "--mixed", is_flag=True, help="Join them although other models or settings made some of them."
)
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON.")
def join_answers(
    parts: tuple[str, ...], output: str, prompts: str | None, *, mixed: bool, as_json: bool
) -> None:
    """Put the files that generate --part has written together.

    The result has one line an id, in the order of the questions. Answers that are missing or there
    twice, and parts that other models or settings made, are refused; the parts stay as they are.

    \b
    llamakit join-answers part-*.jsonl --prompts questions.jsonl --output answers.jsonl
    """
    from llamakit.cli.answer_join import AnswerJoin
    from llamakit.llama.prompts import read_prompts

    if as_json and output == "-":
        raise UsageError("--json and --output -: both would go to standard output; choose one")
    join = AnswerJoin([Path(part) for part in parts], mixed=mixed)
    if prompts is None:
        order = join.by_number()
    else:
        order = join.by_prompts(read_prompts([], Path(prompts)), prompts)
    _write(join, join.lines(order), Path(output), prompts)
    if as_json:
        made = {"output": output, "answers": len(join), "parts": join.counts()}
        click.echo(json_text({**made, "settings": join.settings}, indent=2))
    else:
        note(f"{output} has all {len(join)} answers, of {len(parts)} files")


def _write(join: AnswerJoin, lines: Iterator[bytes], output: Path, prompts: str | None) -> None:
    """Write lines: to a file, which appears when it is complete, or to a pipe or device.

    Raises:
        DestinationError: it is one of the files that are read, or something else than answers.
    """
    from llamakit.cli.answer_file import LINE_STARTS
    from llamakit.cli.answer_stream import AnswerStream, is_file
    from llamakit.files.atomic_file import replacing
    from llamakit.files.disk_errors import disk_errors_explained
    from llamakit.files.regular_file import open_regular

    if not is_file(output):
        with AnswerStream(output) as stream:
            for line in lines:
                stream.write(line)
        return
    if output.exists():
        with open_regular(output) as file:
            head = file.read(max(map(len, LINE_STARTS)))
        if join.holds(output) or (prompts is not None and output.samefile(prompts)):
            raise DestinationError(
                f"{output} is one of the files that are read: pass another --output"
            )
        if head and not head.startswith(LINE_STARTS):
            raise DestinationError(
                f"{output} is there, and is no file of answers: pass another --output"
            )
    with disk_errors_explained(output), replacing(output) as write:
        for line in lines:
            write(line)
