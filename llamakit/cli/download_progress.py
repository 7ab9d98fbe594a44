"""Shows the progress of a download: bars on a terminal, lines in a log, JSON for a script."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from llamakit.cli.terminal import format_nbytes, json_text, note
from llamakit.download.events import (
    Arrived,
    Checked,
    Checking,
    Event,
    Failed,
    FileProgress,
    LinkEnded,
    Planned,
    Progress,
    Restarted,
    Retrying,
    as_json,
)
from llamakit.printable import printable_lines

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

CHECKING = "verifying files on disk"
LINE_SECONDS = 10.0
JSON_SECONDS = 1.0
_WINDOW_SECONDS = 10.0


class ProgressDisplay(Protocol):
    """Shows the events of a download."""

    def show(self, event: Event) -> None:
        """Show one event."""
        ...

    def close(self) -> None:
        """Remove what is not to stay."""
        ...


def open_display(*, json_lines: bool) -> ProgressDisplay:
    """Return JSON lines, progress bars on a terminal (TTY), or plain lines."""
    if json_lines:
        return JsonLines()
    return TerminalBars() if sys.stderr.isatty() else PlainLines()


class JsonLines:
    """One JSON object a line on standard output, progress once a second."""

    def __init__(self) -> None:
        self._due = 0.0

    def show(self, event: Event) -> None:
        """Print one event."""
        if isinstance(event, Checking):
            return
        if isinstance(event, Progress):
            if time.monotonic() < self._due:
                return
            self._due = time.monotonic() + JSON_SECONDS
        sys.stdout.write(json_text(as_json(event)) + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Do nothing: lines stay."""


class PlainLines:
    """Lines on standard error, progress every ten seconds."""

    def __init__(self) -> None:
        self._due = time.monotonic() + LINE_SECONDS
        self._speed = SpeedMeter()

    def show(self, event: Event) -> None:
        """Print the events that have a line."""
        if isinstance(event, Progress):
            done, total = _totals(event.files)
            self._speed.add(done)
            if time.monotonic() >= self._due:
                self._due = time.monotonic() + LINE_SECONDS
                note(self._speed.line(done, total))
        elif line := line_for(event):
            note(line)

    def close(self) -> None:
        """Do nothing: lines stay."""


class TerminalBars:
    """A bar for each file that is being fetched and one for all, on standard error."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def show(self, event: Event) -> None:
        """Update the bars, or print a line above them."""
        if isinstance(event, Progress):
            self._update(event.files)
        elif isinstance(event, Checking):
            bars = self._open()
            task = self._task(bars, CHECKING, event.total)
            bars.update(task, advance=event.nbytes)
        elif line := line_for(event):
            if self._bars:
                self._bars.console.print(
                    f"llamakit: {printable_lines(line)}", markup=False, highlight=False
                )
            else:
                note(line)

    def close(self) -> None:
        """Remove the bars."""
        if self._bars:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()

    def _update(self, files: tuple[FileProgress, ...]) -> None:
        bars = self._open()
        if (old := self._tasks.pop(CHECKING, None)) is not None:
            bars.remove_task(old)
        done, total = _totals(files)
        if len(files) > 1:
            bars.update(self._task(bars, "all", total), completed=done)
        for file in files:
            if 0 < file.nbytes_hashed < file.nbytes or file.nbytes_there < file.nbytes:
                is_complete = file.nbytes_there == file.nbytes
                completed = file.nbytes_hashed if is_complete else file.nbytes_there
                task = self._task(bars, file.path, file.nbytes)
                name = f"{file.path} (checksum)" if is_complete else file.path
                bars.update(task, completed=completed, description=name)
            elif (ended := self._tasks.pop(file.path, None)) is not None:
                bars.remove_task(ended)

    def _task(self, bars: Bars, name: str, total: int) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = bars.add_task(name, total=total)
        return self._tasks[name]

    def _open(self) -> Bars:
        if self._bars is None:
            from rich import progress
            from rich.console import Console

            self._bars = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.DownloadColumn(),
                progress.TransferSpeedColumn(),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bars.start()
        return self._bars


class SpeedMeter:
    """Measures bytes per second over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, nbytes: int) -> None:
        """Add a sample: how many bytes there are now."""
        now = time.monotonic()
        self._samples.append((now, nbytes))
        while now - self._samples[0][0] > _WINDOW_SECONDS:
            self._samples.popleft()

    def line(self, done: int, total: int) -> str:
        """Return the progress, the speed and the remaining time."""
        (before, first), (now, last) = self._samples[0], self._samples[-1]
        text = f"{format_nbytes(done)} of {format_nbytes(total)} ({done / max(total, 1):.0%})"
        speed = (last - first) / (now - before) if now > before else 0.0
        if speed <= 0:
            return text
        return f"{text}, {format_nbytes(int(speed))}/s, {_duration((total - done) / speed)} left"


def line_for(event: Event) -> str | None:
    """Return the line for an event; None for events without one."""
    line = None
    match event:
        case Planned():
            line = _planned_line(event)
        case Checked(good=False):
            line = f"{event.path} is on disk but wrong: {event.note}"
        case Retrying():
            line = f"{event.path}: {event.reason}; retrying in {event.seconds:.1f} s"
        case Restarted():
            line = f"{event.path} is fetched again: {event.reason}"
        case Arrived():
            kind = "MD5" if event.md5 else "SHA-256"
            verified = f", {kind} verified" if event.md5 or event.sha256 else ""
            line = f"{event.path}: {format_nbytes(event.nbytes)}{verified}"
        case Failed():
            line = f"{event.path} failed: {event.reason}"
        case LinkEnded():
            line = f"{event.reason} Responses that have begun are still read."
    return line


def _planned_line(event: Planned) -> str:
    there = sum(file.status == "there" for file in event.files)
    if not event.to_fetch:
        return f"{there} of {len(event.files)} files are on disk and verified; nothing to fetch"
    known = [file for file in event.to_fetch if file.nbytes is not None]
    size = format_nbytes(event.nbytes_missing) if known else "size unknown"
    return (
        f"files to fetch: {len(event.to_fetch)}, {size} (on disk already: "
        f"{there}); {format_nbytes(event.free_nbytes)} are free"
    )


def _totals(files: tuple[FileProgress, ...]) -> tuple[int, int]:
    return sum(file.nbytes_there for file in files), sum(file.nbytes for file in files)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
