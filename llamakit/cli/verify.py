"""``llamakit verify``: checks downloaded files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llamakit.cli.user_path import UserPath
from llamakit.printable import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from llamakit.examine.steps import StepProgress
    from llamakit.examine.verify_report import FileReport, FolderReport, VerifyReport

COLORS = {"ok": "green", "not listed": "yellow", "not served": "yellow"}
_LABELS = {"fault": "wrong", "checked": "checked", "not checked": "not checked"}
_HISTORY_COLORS = {"fault": "red", "checked": "", "not checked": "yellow"}


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=UserPath())
@click.option(
    "--deep", is_flag=True, help="Check the contents too: CRCs, shapes, shards, tokenizer, NaN."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(paths: tuple[str, ...], *, deep: bool, as_json: bool) -> None:
    """Check the files at PATH against their checklists.

    PATH is the folder of a model, of several models, or of a tokenizer. Every file is read, on all
    cores. The exit status is 1 if anything is wrong. A file that no checklist lists is no failure.
    Without a checklist, use --deep. Where there is a llamakit.json, its checksums count too, and
    the history in it is followed back, as far as it can be.

    \b
    llamakit verify llama-2-7b/
    llamakit verify . --deep
    """
    from llamakit.api import verify as run
    from llamakit.cli.terminal import json_text, rendered, steps_bar

    with steps_bar("verifying") as progress:
        report = run(*paths, deep=deep, progress=progress or _import_rich)
    if as_json:
        click.echo(json_text(report.as_json(), indent=2))
    else:
        click.echo(rendered(*_parts(report)))
    click.get_current_context().exit(0 if report.good else 1)


def _import_rich(step: StepProgress) -> None:
    """Import what lays out the report while the files are being hashed: it takes 0.1 s."""
    if step.nbytes:
        import rich.console
        import rich.table
        import rich.text  # noqa: F401


def _parts(report: VerifyReport) -> list[RenderableType]:
    from rich.text import Text

    from llamakit.cli.terminal import format_nbytes

    parts: list[RenderableType] = []
    for folder in report.folders:
        parts += [Text(f"{folder.path}", style="bold"), _table(folder), *_sentences(folder), ""]
    bad = sum(not folder.good for folder in report.folders)
    where = f" in {bad} of {len(report.folders)} folders" if bad else ""
    return [
        *parts,
        Text.assemble(_verdict(report), f"{where}; {format_nbytes(report.nbytes)} were read"),
    ]


def _verdict(report: VerifyReport) -> Text:
    from rich.text import Text

    if not report.good:
        return Text("something is wrong", "red")
    if any(folder.not_checked for folder in report.folders):
        return Text("nothing wrong was found", "green")
    return Text("all good", "green")


def _table(folder: FolderReport) -> RenderableType:
    from rich.text import Text

    from llamakit.cli.terminal import grid

    table = grid("file", "status", "")
    for file in folder.files:
        color = COLORS.get(file.status, "red") if file.good else "red"
        label = "OK" if file.status == "ok" else file.status
        table.add_row(Text(printable(file.name)), Text(label, style=color), Text(_remark(file)))
    return table


def _remark(file: FileReport) -> str:
    if file.status == "mismatch":
        checksums = f"expected {file.expected}, found {file.found}"
        return f"{checksums}: it is {file.note}" if file.note else checksums
    if file.status == "not listed" and file.found:
        return f"md5 {file.found}" + (f": it is {file.note}" if file.note else "")
    return f"it is {file.note}" if file.note and file.status == "not listed" else file.note


def _sentences(folder: FolderReport) -> list[RenderableType]:
    from rich.text import Text

    counts = [
        f"{one.name} has {one.nan} NaN and {one.infinite} infinite values, in "
        + ", ".join(one.files)
        for one in folder.non_finite
    ]
    return [
        *(Text(f"wrong: {sentence}", style="red") for sentence in (*folder.faults, *counts)),
        *(Text(f"checked: {sentence}") for sentence in folder.checked),
        *(Text(f"not checked: {sentence}", style="yellow") for sentence in folder.not_checked),
        *(
            Text(f"history, {_LABELS[it.kind]}: {it.sentence}", style=_HISTORY_COLORS[it.kind])
            for it in folder.history
        ),
    ]
