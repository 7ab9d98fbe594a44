"""Tables for people, and the bar that long work shows on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from llamakit.examine.steps import Report, Steps


def rendered(*parts: RenderableType) -> str:
    """Lay out parts for the terminal, or with every row on one line where nobody watches."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 1000
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def grid(*headings: str) -> Table:
    """Make a table without lines; without headings, if none are given."""
    from rich.table import Table

    table = Table(
        *headings,
        box=None,
        pad_edge=False,
        header_style="bold",
        padding=(0, 2, 0, 0),
        show_header=bool(headings),
    )
    for column in table.columns:
        column.overflow = "fold"
    return table


def sized(nbytes: int) -> str:
    """Return a number of bytes for people, such as ``13.48 GB``."""
    if nbytes < 1000:
        return f"{nbytes} B"
    amount = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def watched(steps: Steps[Report], doing: str) -> Report:
    """Do long work and return its report, with a bar where somebody watches.

    Args:
        doing: what it is, such as ``verifying``.
    """
    from llamakit.examine.steps import finish

    if not sys.stderr.isatty():
        return finish(steps)
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        *(TextColumn(doing), BarColumn(), DownloadColumn()),
        *(TransferSpeedColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing)
        while True:
            try:
                step = next(steps)
            except StopIteration as done:
                report: Report = done.value
                return report
            bar.update(task, completed=step.nbytes, total=step.total)
