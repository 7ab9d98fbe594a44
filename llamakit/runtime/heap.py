"""Gives freed memory back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import sys


def trim() -> None:
    """Give back the holes that packing leaves between the packed weights.

    Pieces below 32 MB come from glibc's heap, which keeps what lies between others: rounding to 8
    bits held twice the memory of the result. Elsewhere than under glibc this does nothing.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
