"""Prefixes that several rows share: in memory once, and read once a step.

A block is a slot behind those of the rows. It is written once, from the slot of the first row that
has the prefix, and is kept as long as a slot refers to it. A slot that does holds its later
positions itself, so a row that continues in another way has nothing to copy.
"""

from __future__ import annotations

from llamakit.runtime.executor import Executor
from llamakit.runtime.model import Transformer
from llamakit.runtime.prefix_store import PAGE

WORTH_SHARING = 2 << 20
"""The least bytes of a prefix, in one layer and before any rounding: with half as many,
two rows are slower than with a copy each (``benchmarks/attention.py``)."""

MOST = 4
"""Blocks of a cache: each prefix of a batch is a call of attention in every layer."""

Reference = tuple[int, int]
"""A block's slot, and how many of its positions are used, in full pages."""

NONE: Reference = (0, 0)


def count_blocks(model: Transformer, slots: int, length: int) -> int:
    """Return how many blocks a cache may have: on a CPU only those in use take memory."""
    can_share = model.device.type == "cpu" and model.decoder is None and model.chunk is None
    return min(MOST, slots // 2) if can_share and length > _least(model) else 0


def _least(model: Transformer) -> int:
    """Return from how many positions on a prefix is worth sharing."""
    return WORTH_SHARING // (2 * model.n_kv_heads * model.head_dim * model.dtype.itemsize)


class PrefixBlocks:
    """The blocks of one cache, and the slots that refer to them.

    Args:
        cache: the number of an open cache, which has ``blocks`` slots more than ``slots``.
    """

    def __init__(self, executor: Executor, cache: int, slots: int, blocks: int) -> None:
        self._executor, self._cache = executor, cache
        self._free = list(range(slots, slots + blocks))
        self._lengths: dict[int, int] = {}  # of the blocks in use
        self._references: list[Reference] = [NONE] * slots

    def of(self, slots: slice) -> tuple[Reference, ...]:
        """Return the references of some slots; () if there is none."""
        references = tuple(self._references[slots])
        return references if references != (NONE,) * len(references) else ()

    def locate(self, slot: int, position: int) -> int:
        """Return where a position of a slot is: in itself, or in a block."""
        block, shared = self._references[slot]
        return block if position < shared else slot

    def share(self, source: int, length: int) -> None:
        """Move the first positions of a slot to a block, if that is worth it and one is free."""
        length = length // PAGE * PAGE
        is_shared = 2 * self._references[source][1] > length
        if is_shared or length < _least(self._executor.model) or not self._free:
            return
        block = self._free.pop()
        self._copy(source, block, 0, length)
        self._refer(source, (block, length))
        self._executor.release(self._cache, source, length)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first positions of a slot; those in a block are referred to instead."""
        block, shared = self._references[source]
        shared = min(shared, length // PAGE * PAGE)
        self._copy(source, target, shared, length)
        self._refer(target, (block, shared))

    def swap(self, one: int, other: int, lengths: tuple[int, int]) -> None:
        """Exchange what two slots hold and refer to.

        Args:
            lengths: how many positions each holds.
        """
        references = self._references
        start, stop = min(references[one][1], references[other][1]), max(lengths)
        if all(lengths):
            self._executor.swap(self._cache, one, other, start, stop)
        elif stop:
            source, target = (one, other) if lengths[0] else (other, one)
            start = references[source][1]
            self._executor.copy(self._cache, source, target, start, stop)
        references[one], references[other] = references[other], references[one]
        for slot in (one, other):
            if references[slot][1] > start:  # the other slot had positions of its own there
                self._executor.release(self._cache, slot, references[slot][1])

    def truncate(self, slot: int, length: int) -> None:
        """Refer to no position from this one on."""
        block, shared = self._references[slot]
        if length < shared:
            pages = length // PAGE * PAGE
            self._copy(slot, slot, pages, length)
            self._refer(slot, (block, pages))

    def dissolve(self) -> None:
        """Copy what slots refer to into them, and free all blocks."""
        for slot, (_, shared) in enumerate(self._references):
            self._copy(slot, slot, 0, shared)
            self._refer(slot, NONE)

    def _copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy positions of a slot, wherever they are, to where they are not yet."""
        block, shared = self._references[source]
        middle = max(start, min(shared, stop))
        for origin, first, last in ((block, start, middle), (source, middle, stop)):
            if first < last and origin != target:
                self._executor.copy(self._cache, origin, target, first, last)

    def _refer(self, slot: int, reference: Reference) -> None:
        """Change a reference, and free the block that was the last one to."""
        before, self._references[slot] = self._references[slot], reference if reference[1] else NONE
        if reference[1]:
            self._lengths.setdefault(*reference)
        block = before[0]
        if before != NONE and all(block != it for it, _ in self._references):
            self._executor.release(self._cache, block, self._lengths.pop(block))
            self._free.append(block)
