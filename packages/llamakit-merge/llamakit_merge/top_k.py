"""Which of a tensor's differences to the base are the largest, found in passes over blocks.

A magnitude is a float32 without sign, and those have the order of their bits. The first pass counts
the upper 16 bits of each, the second the lower 16 bits of those that share the upper ones of the
smallest magnitude kept; a third counts the values equal to it in each row. Memory does not grow
with the tensor but for two numbers a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llamakit_merge.rounding import Array
from llamakit_merge.tensor_group import TensorGroup

_BINS = 1 << 16
_ALL_BITS = 0xFFFFFFFF
_COUNTED_TOGETHER = 1 << 19


@dataclass(frozen=True)
class Largest:
    """The values that are kept: above a magnitude, and the first of those equal to it."""

    smallest: int
    """The smallest magnitude that is kept, as bits."""
    equal: int
    """How many values of that magnitude are kept, the first row by row."""
    equal_before: Array
    """``(rows,)`` int64: how many values of that magnitude the rows before have."""
    total: float
    """The sum of all magnitudes."""
    kept: float
    """The sum of those that are kept."""

    def mask(self, row: int, deltas: Array) -> Array:
        """Return 1 where a difference is kept, else 0.

        Args:
            row: the first row of the block.
            deltas: the block.
        """
        bits = _bits(deltas)
        mask = bits > self.smallest
        equal = bits == self.smallest
        if self.equal_before[row] < self.equal and equal.any():
            ranks = np.cumsum(equal.ravel()) + self.equal_before[row]
            mask |= equal & (ranks <= self.equal).reshape(equal.shape)
        return mask


def find_largest(group: TensorGroup, densities: Sequence[float]) -> list[Largest | None]:
    """Find the largest differences of each model to the base.

    Where several are equal, mergekit keeps those that torch's sort, which is not stable, leaves
    first; here the first are kept, row by row.

    Args:
        densities: for each model but the base, the share of its values that is kept; one at least,
            if the share is not 0.
    Returns:
        For each model what is kept; None: everything.
    """
    numel = int(np.prod(group.shape, dtype=np.int64))
    counts = [
        None if density >= 1 else max(1, int(density * numel)) if density > 0 else 0
        for density in densities
    ]
    wanted = {index: count for index, count in enumerate(counts) if count}
    found = _largest(group, _smallest(group, wanted)) if wanted else {}
    nothing = Largest(_ALL_BITS, 0, np.zeros(group.shape[0], np.int64), 0.0, 0.0)
    return [
        None if count is None else found.get(index, nothing) for index, count in enumerate(counts)
    ]


def _smallest(group: TensorGroup, counts: dict[int, int]) -> dict[int, tuple[int, int]]:
    """Return for each model the smallest magnitude kept, as bits, and how many of that are."""
    upper = {index: _Histogram() for index in counts}
    for _, blocks in group.blocks():
        for index in counts:
            upper[index].add(_bits(_delta(group, blocks, index)) >> 16)
    halves = {index: _bin_of(upper[index].counts(), count) for index, count in counts.items()}
    if group.dtype == "bfloat16":  # its values have no lower half
        return {index: (half << 16, rest) for index, (half, rest) in halves.items()}
    lower = {index: _Histogram() for index in counts}
    for _, blocks in group.blocks():
        for index, (half, _) in halves.items():
            bits = _bits(_delta(group, blocks, index))
            lower[index].add(bits[(bits >> 16) == half] & (_BINS - 1))
    found = {}
    for index, (half, rest) in halves.items():
        bit, last = _bin_of(lower[index].counts(), rest)
        found[index] = (half << 16 | bit, last)
    return found


class _Histogram:
    """Counts 16-bit values, many blocks at a time: a count takes as long as there are bins."""

    def __init__(self) -> None:
        self._counts: Array = np.zeros(_BINS, np.int64)
        self._waiting: list[Array] = []

    def add(self, values: Array) -> None:
        self._waiting.append(values.astype(np.uint16).ravel())
        if sum(map(len, self._waiting)) > _COUNTED_TOGETHER:
            self.counts()

    def counts(self) -> Array:
        """Return how often each value was added."""
        if self._waiting:
            self._counts += np.bincount(np.concatenate(self._waiting), minlength=_BINS)
            self._waiting = []
        return self._counts


def _bin_of(histogram: Array, count: int) -> tuple[int, int]:
    """Return the bin in which the ``count``-th largest value is, and how many of it count."""
    from_above = np.cumsum(histogram[::-1])
    place = int(np.searchsorted(from_above, count))
    before = int(from_above[place] - histogram[::-1][place])
    return len(histogram) - 1 - place, count - before


def _largest(group: TensorGroup, smallest: dict[int, tuple[int, int]]) -> dict[int, Largest]:
    rows = group.shape[0]
    equal = {index: np.zeros(rows + 1, np.int64) for index in smallest}
    totals = dict.fromkeys(smallest, 0.0)
    kept = dict.fromkeys(smallest, 0.0)
    for start, blocks in group.blocks():
        for index, (bits_kept, _) in smallest.items():
            delta = _delta(group, blocks, index)
            bits = _bits(delta)
            matrix = (bits == bits_kept).reshape(len(delta), -1)
            equal[index][start + 1 : start + 1 + len(delta)] = matrix.sum(axis=1)
            if group.shared["rescale"]:
                magnitudes = np.abs(delta)
                totals[index] += float(magnitudes.sum(dtype=np.float64))
                kept[index] += float(magnitudes[bits > bits_kept].sum(dtype=np.float64))
    return {
        index: Largest(
            bits_kept,
            count,
            np.cumsum(equal[index])[:-1],
            totals[index],
            kept[index] + count * float(np.uint32(bits_kept).view(np.float32)),
        )
        for index, (bits_kept, count) in smallest.items()
    }


def _delta(group: TensorGroup, blocks: Sequence[Array], index: int) -> Array:
    assert group.base is not None
    return group.round(blocks[group.others[index]] - blocks[group.base])


def _bits(deltas: Array) -> Array:
    """Return the magnitudes as bits: uint32, in the order of the magnitudes."""
    values = np.ascontiguousarray(deltas, np.float32)
    bits: Array = np.abs(values).view(np.uint32)
    return bits
