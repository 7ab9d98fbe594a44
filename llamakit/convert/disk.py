"""Reading and writing past the kernel's cache, where the file system allows it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llamakit.checkpoint.dtypes import Array
from llamakit.errors import DamagedFileError
from llamakit.files import system_calls
from llamakit.files.disk_errors import naming
from llamakit.files.regular_file import open_descriptor

ALIGNMENT = 4096
"""Of places in files and in memory, in bytes: what every disk takes for direct access."""

SMALL = 32 << 20
"""Files under this many bytes go through the cache: past it they would be slower."""


def align_down(nbytes: int) -> int:
    """Round down to a multiple of ``ALIGNMENT``."""
    return nbytes - nbytes % ALIGNMENT


def align_up(nbytes: int) -> int:
    """Round up to a multiple of ``ALIGNMENT``."""
    return align_down(nbytes + ALIGNMENT - 1)


class Buffer:
    """Memory that the disk can write into: aligned, a multiple of ``ALIGNMENT`` long."""

    def __init__(self, nbytes: int) -> None:
        self.memory = memoryview(system_calls.private_memory(align_up(max(nbytes, 1))))
        self.array: Array = np.frombuffer(self.memory, np.uint8)
        """The same bytes."""


class DiskFile:
    """An open file, read or written at any place by any thread.

    Args:
        direct: past the cache. False, or None to choose: where the file system allows it.
    """

    def __init__(self, path: Path, *, write: bool = False, direct: bool | None = None) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL if write else os.O_RDONLY
        wanted = getattr(os, "O_DIRECT", 0) if direct is not False else 0
        try:
            self._descriptor = open_descriptor(path, flags | wanted)
        except OSError as error:
            if not wanted or error.errno != errno.EINVAL:
                raise
            wanted = 0
            # Some kernels make the file before they see that they cannot open it directly.
            flags &= ~os.O_EXCL
            self._descriptor = open_descriptor(path, flags)
        self.direct = bool(wanted)

    def read(self, memory: memoryview, offset: int, nbytes: int) -> int:
        """Read at least ``nbytes`` bytes from ``offset``, up to the length of ``memory``.

        Args:
            memory: aligned, a multiple of ``ALIGNMENT`` long.
            offset: in bytes, aligned.
            nbytes: how many have to come.
        Returns:
            How many came.

        Raises:
            DamagedFileError: the file ends before.
        """
        done = 0
        while done < nbytes:
            count = self._retry(system_calls.read_at, memory[done:], offset + done)
            if count == 0:
                raise DamagedFileError(
                    f"{self.path} ends at byte {offset + done}, and had {offset + nbytes} when it "
                    "was opened; wait until whatever writes it is done, and start again."
                )
            done += count
            if done < nbytes and done % ALIGNMENT:
                self._use_cache()  # what follows a short read is not aligned
        return done

    def write(self, memory: memoryview, offset: int) -> None:
        """Write all of ``memory`` at ``offset``; both aligned."""
        done = 0
        while done < len(memory):
            done += self._retry(system_calls.write_at, memory[done:], offset + done)
            if done < len(memory) and done % ALIGNMENT:
                self._use_cache()
        if not self.direct and hasattr(os, "posix_fadvise"):
            # Starts the writing now; else all of it waits for fsync.
            os.posix_fadvise(self._descriptor, offset, done, os.POSIX_FADV_DONTNEED)

    def allocate(self, nbytes: int) -> None:
        """Reserve the disk's blocks: each direct write that makes a file longer waits for them."""
        if self.direct and nbytes:
            system_calls.allocate(self._descriptor, nbytes)

    def finish(self, nbytes: int) -> None:
        """Truncate the file to ``nbytes`` bytes, and wait until the disk has them."""
        with naming(self.path):
            os.ftruncate(self._descriptor, nbytes)
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _retry(
        self, call: Callable[[int, memoryview, int], int], memory: memoryview, offset: int
    ) -> int:
        try:
            with naming(self.path):
                return call(self._descriptor, memory, offset)
        except OSError as error:
            if not self.direct or error.errno != errno.EINVAL:
                raise
        self._use_cache()
        with naming(self.path):
            return call(self._descriptor, memory, offset)

    def _use_cache(self) -> None:
        """Go through the cache from now on: the file system takes no direct access here."""
        if self.direct:
            system_calls.stop_direct_access(self._descriptor)
            self.direct = False
