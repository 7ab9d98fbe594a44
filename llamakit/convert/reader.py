"""Reads batches ahead of whoever uses them, in threads of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from llamakit.checkpoint.checked_read import read_checked
from llamakit.checkpoint.dtypes import DTYPES, Array
from llamakit.convert.batches import CopyBatch, Read
from llamakit.convert.disk import ALIGNMENT, SMALL, Buffer, DiskFile, align_down, align_up
from llamakit.errors import DamagedFileError
from llamakit.protocols import Checkpoint

AHEAD = 4
"""How many batches are in memory at a time."""
_THREADS = 4


class SourceReader:
    """Reads batches in order, some ahead. Use it as a context manager.

    Args:
        checkpoint: where parameters are read that are in no file as such.
        buffer_nbytes: the memory of the largest batch.
        direct: past the cache; None chooses.
    """

    def __init__(self, checkpoint: Checkpoint, buffer_nbytes: int, direct: bool | None) -> None:
        self._checkpoint = checkpoint
        self._direct = direct
        self._threads = ThreadPoolExecutor(_THREADS, "llamakit-read")
        self._buffers = deque(Buffer(buffer_nbytes) for _ in range(AHEAD))
        self._files: dict[Path, DiskFile] = {}

    def __enter__(self) -> SourceReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        for file in self._files.values():
            file.close()

    def __call__(self, batches: Iterable[CopyBatch]) -> Iterator[tuple[CopyBatch, list[Array]]]:
        """Yield each batch with what its reads brought, until the next is asked for.

        Yields:
            For each read ``(rows, bytes of a row)`` uint8.

        Raises:
            DamagedFileError: a file has changed since it was opened.
            ParametersError, PluginError: as ``read_checked``.
        """
        waiting: deque[tuple[CopyBatch, Buffer, list[Future[Array]]]] = deque()
        for batch in batches:
            if not self._buffers:
                yield from self._first_of(waiting)
            buffer = self._buffers.popleft()
            waiting.append((batch, buffer, self._start(batch, buffer)))
        while waiting:
            yield from self._first_of(waiting)

    def _first_of(
        self, waiting: deque[tuple[CopyBatch, Buffer, list[Future[Array]]]]
    ) -> Iterator[tuple[CopyBatch, list[Array]]]:
        batch, buffer, reads = waiting.popleft()
        yield batch, [read.result() for read in reads]
        self._buffers.append(buffer)

    def _start(self, batch: CopyBatch, buffer: Buffer) -> list[Future[Array]]:
        started = []
        at = 0
        for read in batch.reads:
            end = at + align_up(read.nbytes) + ALIGNMENT
            memory, array = buffer.memory[at:end], buffer.array[at:end]
            if read.region.path is None:
                job = self._threads.submit(self._ask, batch.move.name, read, array)
            else:
                file = self._open(read.region.path)
                job = self._threads.submit(_read, file, read, memory, array)
            started.append(job)
            at = end
        return started

    def _open(self, path: Path) -> DiskFile:
        opened = self._files.get(path)
        if opened is None:
            try:
                small = path.stat().st_size < SMALL
                opened = DiskFile(
                    path, direct=False if small and self._direct is None else self._direct
                )
            except OSError as error:
                raise DamagedFileError(f"{path} cannot be read: {error.strerror}.") from None
            self._files[path] = opened
        return opened

    def _ask(self, name: str, read: Read, array: Array) -> Array:
        parameter = self._checkpoint.parameters[name]
        shape = (read.stop - read.start, *parameter.shape[1:]) if parameter.shape else ()
        place = array[: read.nbytes].view(DTYPES[parameter.dtype]).reshape(shape)
        place[...] = read_checked(self._checkpoint, name, start=read.start, stop=read.stop)
        return array[: read.nbytes].reshape(read.stop - read.start, read.row_nbytes)


def _read(file: DiskFile, read: Read, memory: memoryview, array: Array) -> Array:
    begin = align_down(read.offset)
    skipped = read.offset - begin
    wanted = skipped + read.nbytes
    file.read(memory[: align_up(wanted)], begin, wanted)
    return array[skipped:wanted].reshape(read.stop - read.start, read.row_nbytes)
