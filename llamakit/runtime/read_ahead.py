"""Tells the system which bytes of a mapped file are wanted soon."""

from __future__ import annotations

import mmap
from typing import Any

import numpy


def read_ahead(array: numpy.ndarray[Any, Any]) -> None:
    """Have the system read the bytes of a mapped array in large pieces.

    Touched page by page, a mapped file is read in pieces of 128 KiB. An array whose bytes do not
    lie together, such as a slice along axis 1, is left alone: what lies between is not wanted.
    """
    mapped = _map_of(array)
    if mapped is None or not array.flags.c_contiguous or not hasattr(mapped, "madvise"):
        return
    first = numpy.frombuffer(mapped, numpy.uint8)
    start = _address(array) - _address(first)
    begin = start - start % mmap.PAGESIZE
    mapped.madvise(mmap.MADV_WILLNEED, begin, start + array.nbytes - begin)


def _map_of(array: numpy.ndarray[Any, Any]) -> mmap.mmap | None:
    base: object = array
    while isinstance(base, numpy.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def _address(array: numpy.ndarray[Any, Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
