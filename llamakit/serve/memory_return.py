"""Gives memory back to the system after large requests.

The C library keeps what Python has freed, in pieces between what is still in use: after a few
bodies of a megabyte that were tens of megabytes, until the server ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import sys
from collections.abc import Callable

QUIET_SECONDS = 1.0
"""After the last large request, so that many in a row are followed by one return."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``."""
KEPT_NBYTES, MAPPED_NBYTES = 16 << 20, 32 << 20
"""Free memory that may stay at the end of each thread's heap, which ``malloc_trim`` leaves alone;
and from which size on memory is in no heap. By itself glibc raises both to 64 and 32 MB."""


class MemoryReturn:
    """Returns memory some time after the last large request. For one event loop."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        if (set_option := _function("mallopt")) is not None:
            set_option(_MMAP_THRESHOLD, MAPPED_NBYTES)
            set_option(_TRIM_THRESHOLD, KEPT_NBYTES)

    def later(self) -> None:
        """Note that a large request has been read."""
        self.close()
        self._timer = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._begin)

    def close(self) -> None:
        """Return nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        asyncio.get_running_loop().run_in_executor(None, return_memory)


def return_memory() -> None:
    """Return free memory to the system, where the C library can; without Python's lock."""
    if (trim := _function("malloc_trim")) is not None:
        trim(0)


@functools.cache
def _function(name: str) -> Callable[..., int] | None:
    """Return a function of glibc; None without glibc."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), name, None)
