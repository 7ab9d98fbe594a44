"""The bytes of a file in order, in large blocks, each read while the one before is used.

Where the file system allows it the blocks come straight from the disk (``O_DIRECT``): that is
quicker than through the kernel's cache when nothing is in it, leaves what others have there, and
reads what the disk holds and not what the cache does.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llamakit.files.disk_errors import naming
from llamakit.files.file_stamp import check_stamp, stamp
from llamakit.files.regular_file import open_descriptor
from llamakit.files.system_calls import private_memory

BLOCK_NBYTES = 4 << 20

_ALIGNMENT = 4096
"""Of places in files and in memory, in bytes: what every disk takes for direct access."""
_DIRECT: int = getattr(os, "O_DIRECT", 0)


def read_blocks(path: Path, nbytes: int = BLOCK_NBYTES) -> Iterator[tuple[int, memoryview]]:
    """Read a file from its first byte to its last.

    Args:
        nbytes: the size of a block; a multiple of 4096.
    Yields:
        The offset of a block and its bytes; these are gone when the next but one is asked for.
    Raises:
        OSError: the file cannot be opened or read.
        DamagedFileError: it has changed while it was read.
    """
    assert nbytes % _ALIGNMENT == 0
    opened = stamp(path.stat())
    file = _File(path, direct=opened.nbytes > nbytes)
    buffers = [memoryview(private_memory(nbytes)) for _ in range(2)]
    with ThreadPoolExecutor(1, "llamakit-read") as ahead:
        try:
            offset, pending = 0, ahead.submit(file.fill, buffers[0])
            while count := pending.result():
                current = buffers[0][:count]
                buffers.reverse()
                pending = ahead.submit(file.fill, buffers[0])
                yield offset, current
                offset += count
            check_stamp(path, opened)
        finally:
            ahead.shutdown(cancel_futures=True)
            file.close()


class _File:
    """A file that is read in order, past the cache as long as that works."""

    def __init__(self, path: Path, *, direct: bool) -> None:
        self._path = path
        self._offset = 0
        self._file = self._open(_DIRECT if direct else 0)

    def fill(self, buffer: memoryview) -> int:
        """Read until the buffer is full or the file ends; return how many bytes that were."""
        filled = 0
        while filled < len(buffer):
            if self._direct and filled % _ALIGNMENT:
                self._leave_direct()  # the end of the file, or a file system that reads in parts
            try:
                with naming(self._path):
                    count = self._file.readinto(buffer[filled:])
            except OSError as error:
                if not self._direct or error.errno != errno.EINVAL:
                    raise
                self._leave_direct()
                continue
            if not count:
                break
            filled += count
            self._offset += count
        return filled

    def close(self) -> None:
        self._file.close()

    def _leave_direct(self) -> None:
        self._file.close()
        self._file = self._open(0)
        self._file.seek(self._offset)

    def _open(self, flags: int) -> io.FileIO:
        self._direct = bool(flags)
        try:
            file = io.FileIO(open_descriptor(self._path, os.O_RDONLY | flags))
        except OSError as error:
            if not flags or error.errno != errno.EINVAL:
                raise
            return self._open(0)
        if not flags and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return file
