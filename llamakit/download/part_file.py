"""A file that is being downloaded, and which of its blocks are there already.

``NAME.part`` has the final size from the start. ``NAME.part.state`` is one line of JSON, which
says what the bytes are of (file, size, validator; never the link), and then a byte for each block:
0 absent, 1 written, 2 written and synced. A mark is set after its block, so a killed process loses
what it had of unfinished blocks, and nothing that is marked. Marks 1 count as long as the machine
has not been started anew; after that only what was synced is believed (where a system does not
tell, both are: the md5 decides in the end).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llamakit.checkpoint.atomic_folder import told_when_full

BLOCK_NBYTES = 256 << 10
"""What a kill costs a connection at most, in bytes."""

ABSENT, WRITTEN, SYNCED = 0, 1, 2
_FORMAT = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Identity:
    """What makes a file on a server the same file tomorrow.

    Args:
        path: relative to the link, such as ``llama-2-7b/consolidated.00.pth``.
        nbytes: its size, as the server says.
        validator: its strong ETag or its date of change; "" if the server gives neither.
    """

    path: str
    nbytes: int
    validator: str


class PartFile:
    """A file with holes. Threads may write different blocks at the same time.

    Args:
        final: the path that the whole file will have; its folder exists.
        identity: what the bytes are of. What is there of another file is dropped.
    """

    def __init__(self, final: Path, identity: Identity) -> None:
        self.final, self.identity = final, identity
        self.path = final.with_name(final.name + ".part")
        self.state_path = final.with_name(final.name + ".part.state")
        self._grown = threading.Condition()
        self._frontier = 0  # blocks below it are all there
        self._is_closed = False
        count = -(-identity.nbytes // BLOCK_NBYTES)
        marks = self._read_state(count)
        with told_when_full(final.parent, kept=True):
            if marks is None:  # what an old thread may still write goes to the old file
                self.path.unlink(missing_ok=True)
            with self.path.open("ab"):
                os.truncate(self.path, identity.nbytes)
            self._marks = bytearray(marks if marks is not None else count)
            self._state, self._marks_at = self._write_state()
        self.resumed_nbytes = self.nbytes_there
        """How much was there already."""

    @property
    def nbytes_there(self) -> int:
        """How many bytes of whole blocks are there."""
        present = len(self._marks) - self._marks.count(ABSENT)
        nbytes = present * BLOCK_NBYTES
        if self._marks and self._marks[-1] != ABSENT:
            nbytes -= len(self._marks) * BLOCK_NBYTES - self.identity.nbytes
        return nbytes

    @property
    def is_closed(self) -> bool:
        """Whether it was published, discarded or let go."""
        return self._is_closed

    def gaps(self) -> list[tuple[int, int]]:
        """Return the ranges of bytes that are not there, whole blocks each, in order."""
        gaps = []
        stop = 0
        while (start := self._marks.find(ABSENT, stop)) >= 0:
            stop = _first_present(self._marks, start)
            gaps.append((start * BLOCK_NBYTES, min(stop * BLOCK_NBYTES, self.identity.nbytes)))
        return gaps

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Open the bytes for a thread of its own; what is discarded meanwhile does no harm."""
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def mark(self, start: int, stop: int) -> int:
        """Mark the blocks that lie whole between two offsets as written.

        Args:
            start: of a block, in bytes.
            stop: up to where bytes are there.
        Returns:
            The start of the first block that is not whole, in bytes.
        """
        first = start // BLOCK_NBYTES
        last = len(self._marks) if stop >= self.identity.nbytes else stop // BLOCK_NBYTES
        if last > first:
            written = bytes([WRITTEN]) * (last - first)
            with self._grown, told_when_full(self.path.parent, kept=True):
                if self._is_closed:
                    return start
                os.pwrite(self._state, written, self._marks_at + first)
                self._marks[first:last] = written
                if first <= self._frontier < last:
                    self._frontier = _first_absent(self._marks, last)
                    self._grown.notify_all()
        return last * BLOCK_NBYTES

    def wait_for_more(self, offset: int) -> int | None:
        """Wait until the bytes from ``offset`` on are there.

        Returns:
            Up to where they are there without a hole; None once the file is closed.
        """
        with self._grown:
            self._frontier = _first_absent(self._marks, self._frontier)
            while not self._is_closed:
                ready = min(self._frontier * BLOCK_NBYTES, self.identity.nbytes)
                if ready > offset or ready == self.identity.nbytes:
                    return ready
                self._grown.wait()
            return None

    def sync(self) -> None:
        """Make what is marked survive a loss of power; does nothing once it is closed."""
        seen = bytes(self._marks)
        with contextlib.suppress(FileNotFoundError), self.opened() as descriptor:
            os.fsync(descriptor)
            with self._grown:
                if not self._is_closed:
                    synced = (SYNCED if mark else ABSENT for mark in seen)
                    self._marks[:] = bytes(map(max, self._marks, synced))
                    os.pwrite(self._state, self._marks, self._marks_at)

    def begin_writing(self) -> bool:
        """Let the system begin to write to the disk, so that ``publish`` need not wait so long.

        Returns:
            Whether it has; one that cannot be told writes when it likes.
        """
        with contextlib.suppress(OSError), self.opened() as descriptor:
            return _begin_writing(descriptor)
        return False

    def publish(self) -> None:
        """Give the whole file its final name."""
        with self.opened() as descriptor:
            os.fsync(descriptor)
        self.path.replace(self.final)
        self.state_path.unlink(missing_ok=True)
        sync_folder(self.final.parent)
        self.close()

    def discard(self) -> None:
        """Remove what there is of it."""
        self.state_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the files; whoever waits for more is told. Does nothing the second time."""
        with self._grown:
            if self._is_closed:
                return
            self._is_closed = True
            self._grown.notify_all()
            os.close(self._state)

    def _read_state(self, count: int) -> bytes | None:
        """Return the marks of an earlier run, or None if there is nothing to go on with."""
        try:
            with self.state_path.open("rb") as file:
                header = json.loads(file.readline())
                marks = file.read()
            size = self.path.stat().st_size
        except (OSError, ValueError):
            return None
        expected = {"format": _FORMAT, "block_nbytes": BLOCK_NBYTES, **asdict(self.identity)}
        same = isinstance(header, dict) and all(header.get(k) == v for k, v in expected.items())
        if not same or size != self.identity.nbytes or len(marks) != count:
            return None
        if header.get("boot") != _boot_id():
            marks = marks.replace(bytes([WRITTEN]), bytes([ABSENT]))
        return bytes(mark if mark in (WRITTEN, SYNCED) else ABSENT for mark in marks)

    def _write_state(self) -> tuple[int, int]:
        """Write the state anew; return its descriptor and where the marks begin."""
        header: dict[str, Any] = {
            "format": _FORMAT,
            "block_nbytes": BLOCK_NBYTES,
            **asdict(self.identity),
            "boot": _boot_id(),
        }
        line = json.dumps(header).encode() + b"\n"
        new = self.state_path.with_name(self.state_path.name + ".new")
        new.write_bytes(line + self._marks)
        new.replace(self.state_path)
        return os.open(self.state_path, os.O_RDWR), len(line)


def left_over(final: Path) -> int:
    """Return how many bytes an earlier run has left of a file, whatever server they are from."""
    state = final.with_name(final.name + ".part.state")
    with contextlib.suppress(OSError):
        marks = state.read_bytes().partition(b"\n")[2]
        return (len(marks) - marks.count(ABSENT)) * BLOCK_NBYTES
    return 0


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _begin_writing(descriptor: int) -> bool:
    """Start writing all that is not on the disk yet, and wait for nothing.

    Source: sync_file_range(2) of Linux; 2 is SYNC_FILE_RANGE_WRITE.
    """
    start, to_the_end = ctypes.c_int64(0), ctypes.c_int64(0)
    try:
        status = ctypes.CDLL(None).sync_file_range(descriptor, start, to_the_end, 2)
    except AttributeError:  # another system
        return False
    return int(status) == 0


def _boot_id() -> str:
    """Return what changes when the machine starts anew; nothing where that is not known."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _first_absent(marks: bytearray, start: int) -> int:
    found = marks.find(ABSENT, start)
    return len(marks) if found < 0 else found


def _first_present(marks: bytearray, start: int) -> int:
    """Return the first block from ``start`` on that is there, or the number of blocks."""
    found = [it for it in (marks.find(WRITTEN, start), marks.find(SYNCED, start)) if it >= 0]
    return min(found, default=len(marks))
