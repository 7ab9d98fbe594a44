"""What memory there is, and giving it back."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

LEFT = 0.2
"""The part of the memory that is free which weights leave to everything else."""

_MEMORY = Path("/proc/meminfo")


def has_room(nbytes: int, memory: Path = _MEMORY) -> bool:
    """Say whether memory has room for so many bytes of weights; yes where nobody tells.

    What other files have in the system's cache counts as room.

    Args:
        memory: what the system says of its memory, in Linux's form.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in memory.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return nbytes <= (1 - LEFT) * int(line.split()[1]) * 1024
    return True


def trim() -> None:
    """Give back the holes that packing leaves between the packed weights.

    Pieces below 32 MB come from glibc's heap, which keeps what lies between others: rounding to 8
    bits held twice the memory of the result. Elsewhere than under glibc this does nothing.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
