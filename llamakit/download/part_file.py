"""A partial download on disk, and the record of which of its blocks are written.

``NAME.part`` has the final size from the start. ``NAME.part.state`` is one line of JSON, which
identifies the file (path, size, validator; never the link), and then a byte for each block: 0
absent, 1 written, 2 written and synced. A block is marked after it is written, so a killed process
loses its unfinished blocks and nothing that is marked. After a reboot only synced blocks count.
Where the system has no boot ID, both count, and the MD5 decides in the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llamakit.files.atomic_file import write_atomically
from llamakit.files.disk_errors import disk_errors_explained, naming
from llamakit.files.json_reader import parse_json
from llamakit.files.regular_file import open_own, read_bytes
from llamakit.files.system_calls import begin_writing, read_at, sync_path, write_all, write_at

BLOCK_NBYTES = 256 << 10
"""How many bytes a killed connection loses at most."""

ABSENT, WRITTEN, SYNCED = 0, 1, 2
_FORMAT = 1
_MAX_HEADER_NBYTES = 64 << 10
"""Of the line of JSON: a path, a size and an ETag."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Identity:
    """Identifies a version of a file on a server.

    Args:
        path: relative to the link, such as ``llama-2-7b/consolidated.00.pth``.
        nbytes: its size, from the server.
        validator: its strong ETag or modification date; "" if the server sends neither.
    """

    path: str
    nbytes: int
    validator: str


class PartFile:
    """A file with gaps. Threads may write different blocks at the same time.

    Args:
        final: the path of the complete file; its folder exists.
        identity: of the file. What is on disk of another version is discarded.
    """

    def __init__(self, final: Path, identity: Identity) -> None:
        self.final, self.identity = final, identity
        self.path, self.state_path = partial_paths(final)
        self._grown = threading.Condition()
        self._frontier = 0  # all blocks below it are written
        self._is_closed = False
        self._n_open = 0  # descriptors of threads
        count = -(-identity.nbytes // BLOCK_NBYTES)
        marks = self._read_state(count)
        with disk_errors_explained(self.path, kept=True):
            if marks is None:  # an old thread may still write to the old file
                self.path.unlink(missing_ok=True)
                self.state_path.unlink(missing_ok=True)
            new = os.O_EXCL if marks is None else 0
            with self.opened(os.O_CREAT | new) as descriptor:
                os.ftruncate(descriptor, identity.nbytes)
            self._marks = bytearray(marks if marks is not None else count)
            self._state, self._marks_at = self._write_state()

    @property
    def nbytes_there(self) -> int:
        """How many bytes of complete blocks are written."""
        present = len(self._marks) - self._marks.count(ABSENT)
        nbytes = present * BLOCK_NBYTES
        if self._marks and self._marks[-1] != ABSENT:
            nbytes -= len(self._marks) * BLOCK_NBYTES - self.identity.nbytes
        return nbytes

    @property
    def nbytes_in_order(self) -> int:
        """How many bytes are written from the beginning on without a gap, whole blocks."""
        return min(self._frontier * BLOCK_NBYTES, self.identity.nbytes)

    @property
    def is_closed(self) -> bool:
        """Whether it was published, discarded or closed."""
        return self._is_closed

    def gaps(self) -> list[tuple[int, int]]:
        """Return the ranges of bytes that are missing, whole blocks each, in order."""
        gaps = []
        stop = 0
        while (start := self._marks.find(ABSENT, stop)) >= 0:
            stop = _first_present(self._marks, start)
            gaps.append((start * BLOCK_NBYTES, min(stop * BLOCK_NBYTES, self.identity.nbytes)))
        return gaps

    def again(self, identity: Identity) -> PartFile:
        """Return the file of the same name that begins again, of this version on the server."""
        return PartFile(self.final, identity)

    def write(self, descriptor: int, data: memoryview, offset: int) -> None:
        """Write all of ``data`` at a place of the file.

        Args:
            descriptor: as ``opened`` yields it.
        """
        write_all(descriptor, data, offset)

    def read(self, descriptor: int, memory: memoryview, offset: int) -> int:
        """Read bytes that are written; return how many came."""
        return read_at(descriptor, memory, offset)

    def flush(self, descriptor: int) -> None:
        """Wait until the disk has what is written."""
        os.fsync(descriptor)

    @contextlib.contextmanager
    def opened(self, flags: int = 0) -> Iterator[int]:
        """Open the file for one thread; a descriptor stays valid if the file is discarded.

        Args:
            flags: besides those for reading and writing.
        """
        with naming(self.path):
            descriptor = open_own(self.path, os.O_RDWR | flags)
            with self._grown:
                self._n_open += 1
            try:
                yield descriptor
            finally:
                os.close(descriptor)
                with self._grown:
                    self._n_open -= 1
                    self._grown.notify_all()

    def mark(self, start: int, stop: int) -> int:
        """Mark the complete blocks between two offsets as written.

        Args:
            start: of a block, in bytes.
            stop: the end of the bytes that are written.
        Returns:
            The start of the first incomplete block, in bytes.
        """
        first = start // BLOCK_NBYTES
        last = len(self._marks) if stop >= self.identity.nbytes else stop // BLOCK_NBYTES
        if last > first:
            written = bytes([WRITTEN]) * (last - first)
            with self._grown, disk_errors_explained(self.state_path, kept=True):
                if self._is_closed:
                    return start
                write_at(self._state, written, self._marks_at + first)
                self._marks[first:last] = written
                if first <= self._frontier < last:
                    self._frontier = _first_absent(self._marks, last)
                    self._grown.notify_all()
        return last * BLOCK_NBYTES

    def wait_for_more(self, offset: int) -> int | None:
        """Wait until the bytes at ``offset`` are written.

        Returns:
            The end of the bytes that are written without a gap; None once the file is closed.
        """
        with self._grown:
            self._frontier = _first_absent(self._marks, self._frontier)
            while not self._is_closed:
                ready = self.nbytes_in_order
                if ready > offset or ready == self.identity.nbytes:
                    return ready
                self._grown.wait()
            return None

    def sync(self) -> None:
        """Flush the marked blocks to disk (fsync); does nothing once it is closed."""
        if self._is_closed:
            return
        marks = bytes(self._marks)
        with contextlib.suppress(FileNotFoundError), self.opened() as descriptor:
            self.flush(descriptor)
            with self._grown:
                if not self._is_closed:
                    synced = (SYNCED if mark else ABSENT for mark in marks)
                    self._marks[:] = bytes(map(max, self._marks, synced))
                    write_at(self._state, self._marks, self._marks_at)

    def begin_writing(self) -> bool:
        """Start flushing to disk without waiting, so that ``publish`` is quicker.

        Returns:
            Whether the system can do that.
        """
        with contextlib.suppress(OSError), self.opened() as descriptor:
            return begin_writing(descriptor)
        return False

    def publish(self, checksum: str) -> None:  # noqa: ARG002 - of others that are such files
        """Flush the complete file and rename it to its final path.

        Args:
            checksum: what has been computed of it.
        """
        with self.opened() as descriptor:
            self.flush(descriptor)
        self._once_unused(lambda: self.path.replace(self.final))
        self.close()  # before it is removed: Windows removes no open file
        self.state_path.unlink(missing_ok=True)
        sync_path(self.final.parent)

    def discard(self) -> None:
        """Delete the partial file and its state."""
        self.close()
        self.state_path.unlink(missing_ok=True)
        self._once_unused(lambda: self.path.unlink(missing_ok=True))

    def _once_unused(self, act: Callable[[], object]) -> None:
        """Rename or remove the file: Windows does neither while a thread still closes it."""
        try:
            act()
        except PermissionError:
            with self._grown:
                self._grown.wait_for(lambda: self._n_open == 0, timeout=30)
            act()

    def close(self) -> None:
        """Close the state file and wake the waiting threads. May be called twice."""
        with self._grown:
            if self._is_closed:
                return
            self._is_closed = True
            self._grown.notify_all()
            os.close(self._state)

    def _header(self) -> dict[str, Any]:
        """Say what the marks are of; those of anything else do not count."""
        return {"format": _FORMAT, "block_nbytes": BLOCK_NBYTES, **asdict(self.identity)}

    def _read_state(self, count: int) -> bytes | None:
        """Return the marks of an earlier run, or None if it cannot be resumed."""
        try:
            with os.fdopen(open_own(self.state_path, os.O_RDONLY), "rb") as file:
                header = parse_json(file.readline(_MAX_HEADER_NBYTES), "the state")
                marks = file.read(count + 1)
            with self.opened() as descriptor:
                size = os.fstat(descriptor).st_size
        except (OSError, ValueError):
            return None
        expected = self._header()
        same = isinstance(header, dict) and all(header.get(k) == v for k, v in expected.items())
        if not same or size != self.identity.nbytes or len(marks) != count:
            return None
        if header.get("boot") != _boot_id():
            marks = marks.replace(bytes([WRITTEN]), bytes([ABSENT]))
        return bytes(mark if mark in (WRITTEN, SYNCED) else ABSENT for mark in marks)

    def _write_state(self) -> tuple[int, int]:
        """Write the state file; return its descriptor and the offset of the marks."""
        line = json.dumps({**self._header(), "boot": _boot_id()}).encode() + b"\n"
        write_atomically(self.state_path, line + self._marks, mode=0o600)
        return open_own(self.state_path, os.O_RDWR), len(line)


def partial_paths(final: Path) -> tuple[Path, Path]:
    """Return where a partial download of a file is, and its state."""
    return final.with_name(final.name + ".part"), final.with_name(final.name + ".part.state")


def resumable_nbytes(final: Path) -> int:
    """Return how many bytes of a file an earlier run has written, from any server."""
    _, state = partial_paths(final)
    with contextlib.suppress(OSError):
        marks = read_bytes(state).partition(b"\n")[2]
        return (len(marks) - marks.count(ABSENT)) * BLOCK_NBYTES
    return 0


def _boot_id() -> str:
    """Return the boot ID, which changes at every boot; "" where the system has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _first_absent(marks: bytearray, start: int) -> int:
    first = marks.find(ABSENT, start)
    return len(marks) if first < 0 else first


def _first_present(marks: bytearray, start: int) -> int:
    """Return the first written block from ``start`` on, or the number of blocks."""
    places = (marks.find(WRITTEN, start), marks.find(SYNCED, start))
    return min((place for place in places if place >= 0), default=len(marks))
