"""A tensor that is stored in chunks: each a box of it, somewhere in a file.

Trainers save what each of their ranks holds: some rows (FSDP), some columns (tensor parallelism),
or a block of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from llamakit.checkpoint.dtypes import DTYPES, Array
from llamakit.checkpoint.tensor_file import StoredTensor, TensorFile, check_shape
from llamakit.errors import DamagedFileError
from llamakit.protocols import RawRegion, RowOrder

_MAX_CHUNKS = 4096
"""Of one tensor: comparing each with each takes the square of it in bytes."""


@dataclass(eq=False)
class Chunk:
    """A box of a tensor."""

    offsets: tuple[int, ...]
    """Where its first value is in the whole tensor, by axis."""
    shape: tuple[int, ...]
    file: TensorFile
    locate: Callable[[], StoredTensor]
    """Finds it in the file; called when it is read for the first time."""

    @cached_property
    def stored(self) -> StoredTensor:
        """Where its values are.

        Raises:
            DamagedFileError: what is there is of another shape, or is not what it should be.
        """
        stored = self.locate()
        if stored.shape != self.shape:
            raise DamagedFileError(
                f"{self.file.path} holds a tensor of shape {stored.shape} where its index says "
                f"{self.shape}. Copy both again."
            )
        return stored


@dataclass(frozen=True)
class ChunkedTensor:
    """A tensor and the chunks that make it up."""

    shape: tuple[int, ...]
    dtype: str
    """Torch's name, such as ``bfloat16``."""
    chunks: Sequence[Chunk]

    def read(self, axis: int, start: int, stop: int) -> Array:
        """Return ``start:stop`` along ``axis``, as a copy: only the bytes of it are read.

        Raises:
            ValueError: no such axis or slice.
            DamagedFileError: a file has changed since it was opened, or is damaged.
        """
        if self.shape and (
            not 0 <= axis < len(self.shape) or not 0 <= start <= stop <= self.shape[axis]
        ):
            raise ValueError(f"no slice {start}:{stop} along axis {axis} of shape {self.shape}")
        low = [0] * len(self.shape)
        high = list(self.shape)
        if self.shape:
            low[axis], high[axis] = start, stop
        out = np.empty([b - a for a, b in zip(low, high, strict=True)], DTYPES[self.dtype])
        for chunk in self.chunks:
            _copy_overlap(chunk, self.dtype, low, high, out)
        return out

    def regions(self, axis: int, order: RowOrder = "meta") -> list[RawRegion] | None:
        """Say where it is; None if its chunks do not follow one another along ``axis``.

        Raises: as ``read``.
        """
        chunks = sorted(self.chunks, key=lambda chunk: chunk.offsets)
        others = [other for other in range(len(self.shape)) if other != axis]
        if any(chunk.shape[it] != self.shape[it] for chunk in chunks for it in others):
            return None
        chunks = [chunk for chunk in chunks if math.prod(chunk.shape)]
        for chunk in chunks:
            _check_dtype(chunk, self.dtype)
        if not chunks or not all(chunk.stored.contiguous for chunk in chunks):
            return None
        return [chunk.file.region(chunk.stored, order) for chunk in chunks]


def join_chunks(
    name: str, shape: tuple[int, ...], dtype: str, chunks: Sequence[Chunk]
) -> ChunkedTensor:
    """Make a tensor of chunks that cover it, each value once.

    Args:
        name: of the tensor, for messages.

    Raises:
        DamagedFileError: they do not.
    """
    try:
        check_shape(shape)
        # By text: hashes of numbers can be made to clash.
        kept = list({str(chunk.offsets): chunk for chunk in chunks}.values())
        _check_cover(shape, kept)
    except ValueError as error:
        where = f"{chunks[0].file.path.parent}: " if chunks else ""
        raise DamagedFileError(
            f"{where}the chunks of {name[:200]} do not make up its shape {shape}: {error}. A file "
            "is missing, or the index is of another save; copy the folder again."
        ) from None
    return ChunkedTensor(shape, dtype, kept)


def stored_chunk(file: TensorFile, name: str, offsets: tuple[int, ...]) -> Chunk:
    """Return a tensor of a file as a chunk of a larger one, which begins at ``offsets``."""
    stored = file.tensors[name]
    return Chunk(offsets, stored.shape, file, lambda: stored)


def whole_tensor(file: TensorFile, name: str) -> ChunkedTensor:
    """Return a tensor that is in one piece in a file."""
    stored = file.tensors[name]
    chunk = stored_chunk(file, name, (0,) * len(stored.shape))
    return ChunkedTensor(stored.shape, stored.dtype, [chunk])


def _check_cover(shape: tuple[int, ...], chunks: Sequence[Chunk]) -> None:
    if len(chunks) > _MAX_CHUNKS:
        raise ValueError(f"there are {len(chunks)} of them, and more than {_MAX_CHUNKS} are odd")
    for chunk in chunks:
        ends = [a + b for a, b in zip(chunk.offsets, chunk.shape, strict=False)]
        if len(chunk.offsets) != len(shape) or len(chunk.shape) != len(shape):
            raise ValueError(f"one is of {len(chunk.shape)} axes")
        if any(end > length for end, length in zip(ends, shape, strict=True)):
            raise ValueError(f"one ends at {tuple(ends)}")
    filled = [chunk for chunk in chunks if math.prod(chunk.shape)]
    numel = sum(math.prod(chunk.shape) for chunk in filled)
    if numel != math.prod(shape):
        raise ValueError(f"they have {numel} values")
    if len(filled) > 1 and not _follow(shape, filled) and _overlap(filled):
        raise ValueError("two of them overlap")


def _follow(shape: tuple[int, ...], chunks: Sequence[Chunk]) -> bool:
    """Say whether chunks follow one another along one axis, which is quick to see."""
    split = {it for it in range(len(shape)) for chunk in chunks if chunk.shape[it] != shape[it]}
    if len(split) != 1:
        return False
    (axis,) = split
    ordered = sorted((chunk.offsets[axis], chunk.shape[axis]) for chunk in chunks)
    return all(a + n == b for (a, n), (b, _) in pairwise(ordered))


def _overlap(chunks: Sequence[Chunk]) -> bool:
    low = np.array([chunk.offsets for chunk in chunks])  # (N, axes)
    high = low + np.array([chunk.shape for chunk in chunks])
    apart = np.zeros((len(chunks), len(chunks)), bool)
    for axis in range(low.shape[1]):
        apart |= low[:, None, axis] >= high[None, :, axis]
    apart |= apart.T
    np.fill_diagonal(apart, True)
    return not apart.all()


def _copy_overlap(
    chunk: Chunk, dtype: str, low: Sequence[int], high: Sequence[int], out: Array
) -> None:
    """Copy what a chunk has of the box from ``low`` to ``high`` into an array of that box."""
    bounds = [
        (max(a, at), min(b, at + length))
        for a, b, at, length in zip(low, high, chunk.offsets, chunk.shape, strict=True)
    ]
    if any(begin >= end for begin, end in bounds):
        return
    _check_dtype(chunk, dtype)
    part = chunk.stored
    for axis, ((begin, end), at) in enumerate(zip(bounds, chunk.offsets, strict=True)):
        part = part.narrow(axis, begin - at, end - at)
    place = tuple(slice(begin - a, end - a) for (begin, end), a in zip(bounds, low, strict=True))
    chunk.file.copy(part, out[place] if place else out)


def _check_dtype(chunk: Chunk, dtype: str) -> None:
    if chunk.stored.dtype != dtype:
        raise DamagedFileError(
            f"{chunk.file.path} holds a tensor of {chunk.stored.dtype} where its index says "
            f"{dtype}. Copy both again."
        )
