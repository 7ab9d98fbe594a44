"""The compiled products: finding them, what this processor has, and their threads."""

from __future__ import annotations

import ctypes
import functools
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

GENERIC = "generic"
"""Plain C, for any processor: too slow to be a kernel, and what the others are checked against."""


class Weight(ctypes.Structure):
    """``struct weight`` of ``csrc/product.h``."""

    _fields_ = (
        ("records", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("bits", ctypes.c_int32),
        ("instructions", ctypes.c_int32),
    )


class Weight16(ctypes.Structure):
    """``struct weight16`` of ``csrc/bfloat16.h``."""

    _fields_ = (
        ("records", ctypes.c_void_p),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("instructions", ctypes.c_int32),
    )


def missing() -> str:
    """Say in half a sentence what this machine lacks for the products; empty if nothing."""
    if _path() is None:
        return (
            "the C code was not compiled when it was installed: install a C compiler, then, in a "
            "clone of llamakit, `pip install --force-reinstall --no-deps packages/llamakit-x86`"
        )
    return "this CPU has no AVX2" if next(iter(instruction_sets())) == GENERIC else ""


@functools.cache
def library() -> ctypes.CDLL:
    """Load the products, and have them computed by the threads that PyTorch computes with.

    A second OpenMP runtime would have as many threads again, so the one that PyTorch has loaded is
    asked for. Without it the products are computed by one thread.
    """
    path = _path()
    assert path is not None  # ``missing`` is asked before
    loaded = ctypes.CDLL(str(path))
    loaded.llamakit_name.restype = loaded.llamakit_name16.restype = ctypes.c_char_p
    places, sizes = [ctypes.c_void_p] * 3, [ctypes.c_int64] * 2
    loaded.llamakit_multiply.argtypes = [*places, ctypes.c_int64, ctypes.c_int, ctypes.c_int]
    loaded.llamakit_multiply16.argtypes = [*places, ctypes.c_int64, *[ctypes.c_int] * 3]
    loaded.llamakit_pack16.argtypes = [ctypes.c_void_p, *sizes, ctypes.c_void_p]
    loaded.llamakit_pack8.argtypes = [ctypes.c_void_p, *sizes, ctypes.c_void_p]
    loaded.llamakit_pack4.argtypes = [*places[:2], *sizes, ctypes.c_void_p]
    parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    loaded.llamakit_use_threads_of(ctypes.cast(parallel, ctypes.c_void_p) if parallel else None)
    return loaded


@functools.cache
def instruction_sets(bits: int = 8) -> dict[str, int]:
    """Return the numbers of the instruction sets that the processor has, the quickest first.

    Args:
        bits: 16: those for weights in bfloat16; otherwise those for 8 and 4 bits.
    """
    loaded = library()
    has = _processor()
    suffix = "16" if bits == 16 else ""
    name_of, needs_of = (getattr(loaded, f"llamakit_{it}{suffix}") for it in ("name", "needs"))
    found, number = {}, 0
    while name := name_of(number):
        needs = needs_of(number)
        if has & needs == needs:
            found[name.decode()] = number
        number += 1
    return found


@functools.cache
def _processor() -> int:
    """Return what the processor has, as bits: whether AMX works is tried out in a child process."""
    has: int = library().llamakit_cpu()
    return has


@functools.cache
def _path() -> Path | None:
    """Return where the compiled products are, if they are."""
    folder = Path(__file__).parent
    paths = (folder / f"products{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((path for path in paths if path.exists()), None)
