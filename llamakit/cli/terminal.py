"""Terminal output of the commands: tables, notes and progress bars.

A bar is shown only on a terminal (TTY); it goes to standard error and is erased at the end.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from llamakit.printable import printable_json, printable_lines

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress
    from rich.table import Table

    from llamakit.examine.steps import StepProgress


LONGEST_MESSAGE = 4000
"""Characters of a note or an error that are printed."""


def note(text: str) -> None:
    """Print a note or an error on standard error.

    What it repeats of others is printable already; what was forgotten becomes so here, and lines
    after the first are indented, so that none passes for one of llamakit's.
    """
    shown = text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}…"
    first, *rest = printable_lines(shown).split("\n")
    click.echo("\n  ".join([f"llamakit: {first}", *map(str.strip, rest)]), err=True)


def note_unquoted(prompts: Sequence[str]) -> None:
    """Say that several prompts of a word each may have been meant as one."""
    if len(prompts) > 1 and not any(prompt == "-" or len(prompt.split()) > 1 for prompt in prompts):
        note(
            f"{len(prompts)} prompts of one word each, and an answer to each; one prompt of "
            f'several words needs quotes: "{" ".join(prompts)}"'
        )


def json_text(value: object, *, indent: int | None = None) -> str:
    """Return a value as JSON for standard output; what is not printable is escaped in it."""
    import json

    return printable_json(json.dumps(value, indent=indent, ensure_ascii=False, default=str))


def rendered(*parts: RenderableType) -> str:
    """Lay out parts for the terminal; without one (TTY), every row is on one line."""
    from rich.console import Console
    from rich.segment import Segment, Segments

    width = None if sys.stdout.isatty() else 1000
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        for part in parts:
            segments = (
                Segment(printable_lines(piece.text), piece.style) for piece in console.render(part)
            )
            console.print(Segments(segments))
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


def format_nbytes(nbytes: int) -> str:
    """Return a number of bytes as text, such as ``13.5 GB``."""
    amount = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


@contextlib.contextmanager
def whole_lines() -> Iterator[Callable[[str], None]]:
    """Write pieces of text, and end the last line where an error or Ctrl-C cuts it off.

    Yields:
        A function that writes one piece to standard output.
    Raises:
        click.Abort: Ctrl-C within a line; its cause is the ``KeyboardInterrupt``.
    """
    is_open = False

    def write(text: str) -> None:
        nonlocal is_open
        is_open = not text.endswith("\n") if text else is_open
        click.echo(text, nl=False)

    try:
        yield write
    except BrokenPipeError:
        raise
    except BaseException as error:
        if is_open:
            click.echo()
            if isinstance(error, KeyboardInterrupt):  # else a second line end follows
                raise click.Abort from error
        raise


@contextlib.contextmanager
def steps_bar(title: str) -> Iterator[Callable[[StepProgress], None] | None]:
    """Show how far some work is that says itself how many bytes there are.

    Args:
        title: of the bar, such as ``verifying``.
    Yields:
        A function to call at each step; None without a terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    with _bytes_progress() as bar:
        task = bar.add_task(title)
        yield lambda step: bar.update(task, completed=step.nbytes, total=step.total)


@contextlib.contextmanager
def bytes_bar(title: str, total: int) -> Iterator[Callable[[int], None] | None]:
    """Show how many bytes are done, how fast, and how long the rest will take.

    Args:
        title: of the bar, such as ``exporting``.
        total: how many bytes there are.
    Yields:
        A function to call with the number of bytes since the last call; None without a terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    with _bytes_progress() as progress:
        task = progress.add_task(title, total=total)
        yield lambda nbytes: progress.advance(task, nbytes)


def _bytes_progress() -> Progress:
    """Make a bar that counts bytes."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        *(BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()),
        console=Console(stderr=True),
        transient=True,
    )


@contextlib.contextmanager
def loading_bar() -> Iterator[Callable[[int], None] | None]:
    """Show how many layers are loaded, on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.status import Status

    with Status("loading", console=Console(stderr=True)) as status:
        yield lambda layers: status.update(f"loading: {layers} layers")


class AnswerCounter:
    """Counts answers and tokens, and measures the speed.

    Args:
        show: called a few times a second with the speed, as text, and the number of answers.
    """

    def __init__(self, show: Callable[[str, int], object] | None = None) -> None:
        self.answers = self.tokens = 0
        self._show = show
        self._start = self._shown = time.monotonic()

    def add(self, tokens: int, answers: int) -> None:
        """Count tokens and answers."""
        self.tokens += tokens
        self.answers += answers
        now = time.monotonic()
        if self._show and (answers or now - self._shown > 0.2):
            self._shown = now
            self._show(self.speed, self.answers)

    @property
    def speed(self) -> str:
        """Tokens a second since the start."""
        return f"{self.tokens / max(time.monotonic() - self._start, 1e-3):.1f} tokens/s"

    @property
    def summary(self) -> str:
        """Answers, tokens, time and speed, in one line."""
        answers = "1 answer" if self.answers == 1 else f"{self.answers} answers"
        seconds = time.monotonic() - self._start
        return f"{answers}, {self.tokens} tokens in {seconds:.1f} s: {self.speed}"


@contextlib.contextmanager
def answers_bar(total: int) -> Iterator[AnswerCounter]:
    """Count answers, and show the count and the speed on a terminal."""
    if not sys.stderr.isatty():
        yield AnswerCounter()
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    speed = TextColumn("{task.fields[speed]}")
    with Progress(*columns, speed, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("answering", total=total, speed="")
        yield AnswerCounter(lambda speed, done: progress.update(task, completed=done, speed=speed))
