"""Weights as they are stored: views of mapped files as tensors, and those that are rounded."""

from __future__ import annotations

import mmap
from dataclasses import replace
from typing import Any

import numpy
import torch

from llamakit.checkpoint.capabilities import quantization, read_quantized
from llamakit.checkpoint.checked_read import read_checked
from llamakit.checkpoint.dtypes import Array
from llamakit.checkpoint.layout import OUTPUT
from llamakit.checkpoint.rounding import GROUP, round_int4
from llamakit.checkpoint.shard_plan import Slice
from llamakit.protocols import Checkpoint, Parameter, QuantizedWeight
from llamakit.runtime.kernels.rounded import Rounded, to_int8

_ROWS = 256
"""How many whole rows are read at a time."""


def as_output(embedding: Parameter) -> Parameter:
    """Return the output layer of tied embeddings, which is split on its rows."""
    return replace(embedding, name=OUTPUT, axis=0)


def takes_stored(checkpoint: Checkpoint, name: str, quantize: str | None) -> bool:
    """Say whether a weight is used as it is stored rounded.

    Args:
        quantize: what the user asks for; None is what the checkpoint was made for.
    """
    kind = quantization(checkpoint, name)
    return kind is not None and (kind == quantize or quantization(checkpoint) is not None)


def read_rounded(checkpoint: Checkpoint, parameter: Parameter, where: Slice) -> Rounded:
    """Read the slice of a rank of a weight that is stored rounded."""
    if quantization(checkpoint, parameter.name) == "int4":
        groups, columns = _whole_groups(where)
    else:
        groups, columns = where, None
    bounds = {"axis": groups.axis, "start": groups.start, "stop": groups.stop}
    return _as_tensors(read_quantized(checkpoint, parameter, **bounds), columns)


def round_slice(checkpoint: Checkpoint, parameter: Parameter, where: Slice) -> Rounded:
    """Round some columns of a weight to 8 bits by the scales of its whole rows.

    So a model is rounded alike on any number of ranks. Of the other columns nothing is kept.
    """
    rows = parameter.shape[0]
    parts = (
        read_checked(checkpoint, parameter.name, start=start, stop=min(start + _ROWS, rows))
        for start in range(0, rows, _ROWS)
    )
    largest = torch.cat([to_torch(part).float().abs().amax(1) for part in parts])
    columns = to_torch(read_slice(checkpoint, parameter.name, where))
    return Rounded("int8", *to_int8(columns, largest))


def round_groups(checkpoint: Checkpoint, parameter: Parameter, where: Slice) -> Rounded:
    """Round a slice to 4 bits that no operator takes, as the whole weight would be rounded."""
    groups, columns = _whole_groups(where)
    return _as_tensors(round_int4(read_slice(checkpoint, parameter.name, groups)), columns)


def read_slice(checkpoint: Checkpoint, name: str, where: Slice) -> Array:
    """Read the values of a weight that a rank holds. Raises as ``read_checked``."""
    bounds = {"axis": where.axis, "start": where.start, "stop": where.stop}
    return read_checked(checkpoint, name, **bounds)


def _whole_groups(where: Slice) -> tuple[Slice, slice | None]:
    """Widen a slice to whole groups of columns; return also which of these it is, if not all."""
    if where.axis == 0 or where.start % GROUP == where.stop % GROUP == 0:
        return where, None
    first = where.start // GROUP * GROUP
    wide = Slice(1, first, -(-where.stop // GROUP) * GROUP)
    return wide, slice(where.start - first, where.stop - first)


def _as_tensors(weight: QuantizedWeight, columns: slice | None) -> Rounded:
    read_ahead(weight.values)
    return Rounded(weight.kind, to_torch(weight.values), to_torch(weight.scales), columns)


def to_torch(array: numpy.ndarray[Any, Any]) -> torch.Tensor:
    """View an array as a tensor, bfloat16 included; memory is shared.

    Args:
        array: such as ``Checkpoint.read`` returns. One that cannot be written to, such as a mapped
            file's, is copied: torch has no such tensors.
    """
    if not array.flags.writeable:
        array = array.copy()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(numpy.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def read_ahead(array: numpy.ndarray[Any, Any]) -> None:
    """Have the system read the bytes of a mapped array in large blocks.

    Page faults read a mapped file in blocks of 128 KiB. An array that is not contiguous, such as a
    slice along axis 1, is left alone: the bytes in between are not wanted.
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
