"""A download for whoever watches: bars on a terminal, lines in a log, JSON for a script."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

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

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_SECONDS = 10.0
JSON_SECONDS = 1.0
_WINDOW_SECONDS = 10.0


class Screen(Protocol):
    """Shows events."""

    def show(self, event: Event) -> None:
        """Show one event."""
        ...

    def close(self) -> None:
        """Leave the screen as it should stay."""
        ...


def open_screen(*, json_lines: bool) -> Screen:
    """Return what suits standard output and standard error."""
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
        sys.stdout.write(json.dumps(as_json(event), ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing is left to do."""


class PlainLines:
    """Lines on standard error, progress every ten seconds."""

    def __init__(self) -> None:
        self._due = time.monotonic() + LINE_SECONDS
        self._speed = Speed()

    def show(self, event: Event) -> None:
        """Print what is worth a line."""
        if isinstance(event, Progress):
            done, total = _sums(event.files)
            self._speed.add(done)
            if time.monotonic() >= self._due:
                self._due = time.monotonic() + LINE_SECONDS
                _say(self._speed.line(done, total))
        elif line := line_for(event):
            _say(line)

    def close(self) -> None:
        """Nothing is left to do."""


class TerminalBars:
    """A bar for each file that is on its way and one for all, on standard error."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def show(self, event: Event) -> None:
        """Move the bars; what is worth a line stands above them."""
        if isinstance(event, Progress):
            self._move(event.files)
        elif isinstance(event, Checking):
            bars = self._open()
            task = self._task(bars, "checking what is there", event.total)
            bars.update(task, advance=event.nbytes)
        elif line := line_for(event):
            if self._bars:
                self._bars.console.print(f"llamakit: {line}", markup=False, highlight=False)
            else:
                _say(line)

    def close(self) -> None:
        """Take the bars away."""
        if self._bars:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()

    def _move(self, files: tuple[FileProgress, ...]) -> None:
        bars = self._open()
        if (old := self._tasks.pop("checking what is there", None)) is not None:
            bars.remove_task(old)
        done, total = _sums(files)
        if len(files) > 1:
            bars.update(self._task(bars, "all", total), completed=done)
        for file in files:
            if 0 < file.nbytes_hashed < file.nbytes or file.nbytes_there < file.nbytes:
                whole = file.nbytes_there == file.nbytes
                shown = file.nbytes_hashed if whole else file.nbytes_there
                task = self._task(bars, file.path, file.nbytes)
                name = f"{file.path} (md5)" if whole else file.path
                bars.update(task, completed=shown, description=name)
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


class Speed:
    """Bytes a second over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, nbytes: int) -> None:
        """Take in how much there is now."""
        now = time.monotonic()
        self._samples.append((now, nbytes))
        while now - self._samples[0][0] > _WINDOW_SECONDS:
            self._samples.popleft()

    def line(self, done: int, total: int) -> str:
        """Say how far it is, how fast it goes and how long the rest will take."""
        (before, first), (now, last) = self._samples[0], self._samples[-1]
        text = f"{sized(done)} of {sized(total)} ({done / max(total, 1):.0%})"
        speed = (last - first) / (now - before) if now > before else 0.0
        if speed <= 0:
            return text
        return f"{text}, {sized(int(speed))}/s, {_duration((total - done) / speed)} left"


def line_for(event: Event) -> str | None:
    """Say an event in a line, if it is worth one."""
    line = None
    match event:
        case Planned():
            line = _planned_line(event)
        case Checked(good=False):
            line = f"{event.path} is here but wrong: {event.note}"
        case Retrying():
            line = f"{event.path}: {event.reason}; again in {event.seconds:.1f} s"
        case Restarted():
            line = f"{event.path} is fetched anew: {event.reason}"
        case Arrived():
            line = f"{event.path}: {sized(event.nbytes)}{', md5 right' if event.md5 else ''}"
        case Failed():
            line = f"{event.path} failed: {event.reason}"
        case LinkEnded():
            line = f"{event.reason} What is being sent at this moment is still taken."
    return line


def sized(nbytes: int) -> str:
    """Return a number of bytes for people, such as ``13.5 GB``."""
    amount = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def _planned_line(event: Planned) -> str:
    there = sum(file.status == "there" for file in event.files)
    if not event.wanted:
        return f"{there} of {len(event.files)} files are here and right; nothing to fetch"
    known = [file for file in event.wanted if file.nbytes is not None]
    size = sized(event.nbytes_missing) if known else "size unknown"
    return (
        f"files to fetch: {len(event.wanted)}, {size} (here already: "
        f"{there}); {sized(event.free_nbytes)} are free"
    )


def _sums(files: tuple[FileProgress, ...]) -> tuple[int, int]:
    return sum(file.nbytes_there for file in files), sum(file.nbytes for file in files)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _say(line: str) -> None:
    sys.stderr.write(f"llamakit: {line}\n")
    sys.stderr.flush()
