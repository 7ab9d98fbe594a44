"""Completes files whose values are written: what is around the values, and their checksums.

A file of tensors is frames of known bytes with values between them. Some frames have the CRC of
the values before them, so the values are read once, in order; the MD5 of the whole comes with it.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from llamakit.checkpoint.file_layout import FileLayout
from llamakit.checkpoint.hashing import BlockRead, FilePass, read_files
from llamakit.convert.moves import WeightFile
from llamakit.files.disk_errors import disk_errors_explained
from llamakit.files.regular_file import open_own
from llamakit.files.system_calls import write_all


def value_rooms(layout: FileLayout) -> Iterator[tuple[int, int]]:
    """Yield where the values of each tensor that has some are: offset and length, in bytes."""
    at = 0
    for frame, nbytes in _frames(layout):
        at += len(frame)
        if nbytes:
            yield at, nbytes
        at += nbytes


def complete_files(
    files: Sequence[WeightFile], folder: Path
) -> Generator[BlockRead, None, dict[str, str]]:
    """Write the frames of files whose values are there, and flush the files.

    Args:
        folder: where they are.
    Yields:
        How much has been read.
    Returns:
        The MD5 of each file by its name.

    Raises:
        OSError: a file cannot be read or written.
        DamagedFileError: a file has changed meanwhile.
    """
    framers = {folder / file.name: _Framer(file.layout) for file in files}
    for event in read_files([FilePass(path, [framer]) for path, framer in framers.items()]):
        if isinstance(event, BlockRead):
            yield event
        elif event.error is not None:
            raise event.error
    for path, framer in framers.items():
        _write(path, framer.frames)
    return {path.name: framer.hexdigest() for path, framer in framers.items()}


class _Framer:
    """Sees a file in order, and works out its frames."""

    def __init__(self, layout: FileLayout) -> None:
        self.layout = layout
        self.frames: list[tuple[int, bytes]] = []
        """Each with its offset in the file, in bytes."""
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._steps = _frames(layout)
        self._in_frame = self._in_values = self._crc = self._at = 0
        self._begin(*next(self._steps))

    def update(self, offset: int, block: memoryview) -> None:
        """Take the next bytes; those of a frame are passed over."""
        assert offset == self._at
        while block:
            if self._in_frame:
                taken = min(self._in_frame, len(block))
                self._in_frame -= taken
            else:
                taken = min(self._in_values, len(block))
                self._take(block[:taken])
            self._at += taken
            block = block[taken:]
            if not self._in_values and not self._in_frame and self._at < self.layout.nbytes:
                self._begin(*self._steps.send(self._crc))

    def hexdigest(self) -> str:
        """Return the MD5 of the file as it is with its frames."""
        return self._md5.hexdigest()

    def _begin(self, frame: bytes, nbytes: int) -> None:
        self.frames.append((self._at, frame))
        self._md5.update(frame)
        self._in_frame, self._in_values, self._crc = len(frame), nbytes, 0

    def _take(self, values: memoryview) -> None:
        self._md5.update(values)
        if self.layout.needs_crc:
            self._crc = zlib.crc32(values, self._crc)
        self._in_values -= len(values)


def _frames(layout: FileLayout) -> Generator[tuple[bytes, int], int | None, None]:
    """Yield each frame and how many bytes of values follow; take the CRC of these values."""
    frame, crcs = layout.head, []
    for index, tensor in enumerate(layout.stored):
        frame += layout.before(index)
        crc = 0
        if tensor.nbytes:
            crc = (yield frame, tensor.nbytes) or 0
            frame = b""
        frame += layout.after(index, crc)
        crcs.append(crc)
    yield frame + layout.tail(crcs), 0


def _write(path: Path, frames: Sequence[tuple[int, bytes]]) -> None:
    descriptor = open_own(path, os.O_RDWR)
    try:
        with disk_errors_explained(path, kept=True):
            for offset, frame in frames:
                write_all(descriptor, memoryview(frame), offset)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
