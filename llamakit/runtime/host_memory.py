"""Host memory: how much is available, and returning unused memory to the system."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

LEFT = 0.2
"""The share of the available memory that weights leave to everything else."""

_MEMORY = Path("/proc/meminfo")


def has_room(nbytes: int, memory: Path = _MEMORY) -> bool:
    """Return whether so many bytes of weights fit into memory; True where that is unknown.

    Memory that the page cache uses for other files counts as available.

    Args:
        memory: the file with the system's figures, in the format of Linux's /proc/meminfo.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in memory.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return nbytes <= (1 - LEFT) * int(line.split()[1]) * 1024
    return True


def trim() -> None:
    """Return the free memory between packed weights to the system.

    Blocks below 32 MB come from glibc's heap, which keeps free blocks between used ones: rounding
    to 8 bits took twice the memory of the result. Without glibc this does nothing.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
