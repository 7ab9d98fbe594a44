"""The bytes of a file in order, in blocks.

The kernel reads ahead while a block is used, which is quicker than reading past its cache
(``O_DIRECT``) with a thread. What the cache holds of a large file is dropped before, so that the
disk is read and not the cache.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

from llamakit.files.disk_errors import naming
from llamakit.files.file_stamp import check_stamp, stamp
from llamakit.files.regular_file import open_descriptor
from llamakit.files.system_calls import read_ahead_from_disk

BLOCK_NBYTES = 1 << 20
"""Fits into a core's second-level cache, where a checksum finds it."""
_LARGE_NBYTES = 4 << 20


def read_blocks(path: Path, nbytes: int = BLOCK_NBYTES) -> Iterator[tuple[int, memoryview]]:
    """Read a file from its first byte to its last.

    Args:
        nbytes: the size of a block.
    Yields:
        The offset of a block and its bytes; these are gone when the next is asked for.
    Raises:
        OSError: the file cannot be opened or read.
        DamagedFileError: it has changed while it was read.
    """
    opened = stamp(path.stat())
    buffer = memoryview(bytearray(nbytes))
    with io.FileIO(open_descriptor(path, os.O_RDONLY)) as file, naming(path):
        if opened.nbytes > _LARGE_NBYTES:
            read_ahead_from_disk(file.fileno())
        offset = 0
        while count := _fill(file, buffer):
            yield offset, buffer[:count]
            offset += count
    check_stamp(path, opened)


def _fill(file: io.FileIO, buffer: memoryview) -> int:
    """Read until the buffer is full or the file ends; return how many bytes that were."""
    filled = 0
    while filled < len(buffer) and (count := file.readinto(buffer[filled:])):
        filled += count
    return filled
