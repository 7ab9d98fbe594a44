"""Writes files of tensors, each once and from its first byte to its last.

What is put into a file fills a block. A full block goes to a thread that hashes it and to one that
writes it, and comes back to be filled again; there are so many blocks and no more.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from llamakit.checkpoint.dtypes import Array
from llamakit.checkpoint.file_layout import FileLayout
from llamakit.convert.disk import SMALL, Buffer, DiskFile, align_down, align_up
from llamakit.cores import available_cores

_BLOCK_NBYTES = 4 << 20
_ALL_BLOCKS_NBYTES = 48 << 20
_SPARE_BLOCKS = 8
_WRITERS = 2


def block_nbytes(files: int) -> int:
    """Return how large the blocks are when so many files are written at a time."""
    share = _ALL_BLOCKS_NBYTES // (files + _SPARE_BLOCKS)
    return max(align_up(1), min(_BLOCK_NBYTES, align_down(share)))


def block_count(files: int) -> int:
    """Return how many blocks there are: each file holds one, and the rest are on their way."""
    return files + _SPARE_BLOCKS


class Lanes:
    """The threads that hash and write, and the blocks that they share.

    Use it as a context manager: leaving it waits for what is written, or stops it at an error.

    Args:
        files: how many files are open at a time, at most.
        direct: past the cache; None chooses.
    """

    def __init__(self, files: int, *, direct: bool | None) -> None:
        self.direct = direct
        hashers = min(files, available_cores())
        self._hashers = [ThreadPoolExecutor(1, "llamakit-md5") for _ in range(hashers)]
        writers = min(files, _WRITERS)
        self._writers = [ThreadPoolExecutor(1, "llamakit-write") for _ in range(writers)]
        self._blocks: queue.SimpleQueue[AlignedBlock] = queue.SimpleQueue()
        for _ in range(block_count(files)):
            self._blocks.put(AlignedBlock(block_nbytes(files)))
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._opened = 0
        self._files: list[OutputFile] = []

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, *exception: object) -> None:
        for thread in (*self._hashers, *self._writers):
            thread.shutdown(cancel_futures=exception[0] is not None)
        for file in self._files:
            file.disk.close()

    def open(self, path: Path, layout: FileLayout) -> OutputFile:
        """Begin a file."""
        lanes = (
            self._hashers[self._opened % len(self._hashers)],
            self._writers[self._opened % len(self._writers)],
        )
        self._opened += 1
        file = OutputFile(path, layout, self, *lanes)
        self._files.append(file)
        return file

    def block(self) -> AlignedBlock:
        """Wait for an empty block.

        Raises:
            OSError: something could not be written.
        """
        block = self._blocks.get()
        self.check()
        return block

    def check(self) -> None:
        """Raise what went wrong in a thread, if anything has."""
        if self._error is not None:
            raise self._error

    def send(
        self, block: AlignedBlock, jobs: Sequence[tuple[ThreadPoolExecutor, Callable[[], None]]]
    ) -> None:
        """Give a full block to the threads; after the last job it is empty again."""
        block.users = len(jobs)
        for thread, job in jobs:
            thread.submit(self._run, block, job)

    def _run(self, block: AlignedBlock, job: Callable[[], None]) -> None:
        try:
            if self._error is None:
                job()
        except BaseException as error:  # noqa: BLE001 - the thread that fills blocks raises it
            self._error = error
        with self._lock:
            block.users -= 1
            if block.users == 0:
                block.filled = 0
                self._blocks.put(block)


class AlignedBlock(Buffer):
    """A part of a file, on its way to the disk."""

    def __init__(self, nbytes: int) -> None:
        super().__init__(nbytes)
        self.filled = 0
        self.users = 0


class OutputFile:
    """A file that is being written; ``Lanes.open`` makes one."""

    def __init__(
        self,
        path: Path,
        layout: FileLayout,
        lanes: Lanes,
        hasher: ThreadPoolExecutor,
        writer: ThreadPoolExecutor,
    ) -> None:
        direct = False if layout.nbytes < SMALL and lanes.direct is None else lanes.direct
        self.disk = DiskFile(path, write=True, direct=direct)
        self.disk.allocate(align_up(layout.nbytes))
        self._layout = layout
        self._lanes = lanes
        self._hasher = hasher
        self._writer = writer
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._block: AlignedBlock | None = None
        self._sent = 0
        self._crcs: list[int] = []
        self._crc = 0
        self._left = 0
        self._done: Future[None] | None = None
        self._add(layout.head)
        self._begin_tensor()

    def put(self, parts: Sequence[Array]) -> None:
        """Add rows of the tensor that is next.

        Args:
            parts: each ``(rows, bytes)`` uint8; they are joined side by side.
        """
        width = sum(part.shape[1] for part in parts)
        rows = parts[0].shape[0]
        row = 0
        while row < rows:
            block = self._current()
            fit = min(rows - row, (len(block.array) - block.filled) // width)
            if fit:
                self._put_rows(block, [part[row : row + fit] for part in parts], width)
                row += fit
            else:
                self._put_bytes(np.concatenate([part[row] for part in parts]))
                row += 1
        self._left -= rows * width
        assert self._left >= 0
        if not self._left:
            self._end_tensor()

    def finish(self) -> str:
        """Wait until the file is on the disk; return its md5."""
        if self._done is not None:
            self._done.result()
        self._hasher.submit(lambda: None).result()
        self._lanes.check()
        assert self._sent == self._layout.nbytes
        return self._md5.hexdigest()

    def _begin_tensor(self) -> None:
        """Write up to the next values; tensors without any are passed over."""
        while len(self._crcs) < len(self._layout.stored):
            self._add(self._layout.before(len(self._crcs)))
            self._crc = 0
            self._left = self._layout.stored[len(self._crcs)].nbytes
            if self._left:
                return
            self._close_tensor()
        self._add(self._layout.tail(self._crcs))
        self._send()
        self._done = self._writer.submit(self._close)

    def _end_tensor(self) -> None:
        self._close_tensor()
        self._begin_tensor()

    def _close_tensor(self) -> None:
        self._add(self._layout.after(len(self._crcs), self._crc))
        self._crcs.append(self._crc)

    def _put_rows(self, block: AlignedBlock, parts: Sequence[Array], width: int) -> None:
        rows = len(parts[0])
        place = block.array[block.filled : block.filled + rows * width]
        matrix = place.reshape(rows, width)
        column = 0
        for part in parts:
            matrix[:, column : column + part.shape[1]] = part
            column += part.shape[1]
        self._filled(block, place)

    def _put_bytes(self, data: Array) -> None:
        """Add values that continue in the next block."""
        at = 0
        while at < len(data):
            block = self._current()
            count = min(len(data) - at, len(block.array) - block.filled)
            place = block.array[block.filled : block.filled + count]
            place[:] = data[at : at + count]
            self._filled(block, place)
            at += count

    def _add(self, data: bytes) -> None:
        """Add bytes before or after the values."""
        crc = self._crc
        self._put_bytes(np.frombuffer(data, np.uint8))
        self._crc = crc

    def _filled(self, block: AlignedBlock, place: Array) -> None:
        if self._layout.needs_crc:
            self._crc = zlib.crc32(place.data, self._crc)
        block.filled += len(place)
        if block.filled == len(block.array):
            self._send()

    def _current(self) -> AlignedBlock:
        if self._block is None:
            self._block = self._lanes.block()
        return self._block

    def _send(self) -> None:
        """Give the block to the threads; the last one of a file need not be full."""
        block, self._block = self._block, None
        if block is None:
            return
        offset, nbytes = self._sent, block.filled
        self._sent += nbytes
        padded = align_up(nbytes)
        block.array[nbytes:padded] = 0
        jobs = [
            (self._writer, lambda: self.disk.write(block.memory[:padded], offset)),
            (self._hasher, lambda: self._md5.update(block.memory[:nbytes])),
        ]
        self._lanes.send(block, jobs)

    def _close(self) -> None:
        if self._sent == self._layout.nbytes:
            self.disk.finish(self._sent)
        self.disk.close()
