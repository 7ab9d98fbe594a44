"""Slots of a KV cache and the tokens that each holds, so that a shared prefix is computed once."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from functools import partial

import torch

from llamakit.runtime.executor import Executor
from llamakit.runtime.model import Batch
from llamakit.runtime.prefix_blocks import PrefixBlocks, count_blocks
from llamakit.runtime.prefix_store import PAGE, PrefixStore

PADDING = 0
"""The token that fills up a shorter row of a batch; its value does not matter."""

WORTH_COPYING = 16
"""The shortest prefix, in tokens, that is copied from another slot instead of computed."""

BLOCK = 64
"""How many tokens are compared at once."""


class CacheSlots:
    """A cache on every rank, with the tokens whose keys and values each slot holds.

    A slot keeps its tokens after its row has ended, so of the next prompt with the same prefix
    only the rest is computed. Slots refer to long prefixes that they share (``PrefixBlocks``).

    Args:
        count: how many slots.
        length: the longest sequence, in tokens.
        stored_nbytes: how much memory the prefixes take that lose their slot; 0: none are stored.
    """

    def __init__(
        self, executor: Executor, count: int, length: int, *, stored_nbytes: int = 0
    ) -> None:
        self.executor = executor
        self.length = length
        self.held: list[list[int]] = [[] for _ in range(count)]
        blocks = count_blocks(executor.model, count, length)
        self._number = executor.open_cache(count + blocks, length)
        self._blocks = PrefixBlocks(executor, self._number, count, blocks)
        self._store = PrefixStore(executor, self._number, stored_nbytes) if stored_nbytes else None

    def fit(self, count: int, length: int, prompts: Iterable[Sequence[int]] = ()) -> None:
        """Make room for ``count`` sequences of ``length`` tokens.

        Args:
            prompts: the held tokens are kept if one of these shares a prefix with them; otherwise
                their memory is freed before the new cache is allocated.
        """
        if count <= len(self.held) and length <= self.length:
            return
        useful = any(self.best(tokens, 0)[1] >= WORTH_COPYING for tokens in prompts)
        held = [tokens[:length] if useful else [] for tokens in self.held[:count]]
        if useful:
            self._blocks.dissolve()
        self.held, self.length = [[] for _ in range(count)], length
        blocks = count_blocks(self.executor.model, count, length)
        kept = len(held), max(map(len, held))
        self.executor.resize_cache(self._number, count + blocks, length, kept)
        self._blocks = PrefixBlocks(self.executor, self._number, count, blocks)
        self.held[: len(held)] = held

    def close(self) -> None:
        """Free the cache."""
        if self._store is not None:
            self._store.close()
        self.executor.close_cache(self._number)

    def forward(
        self, first: int, tokens: Sequence[Sequence[int]], *, every_position: bool = False
    ) -> tuple[torch.Tensor, Batch]:
        """Append tokens to adjacent slots and compute the logits that follow them.

        Args:
            first: the slot of the first row.
            tokens: B rows of at least one token; T is the longest one's length.
            every_position: logits of all T positions instead of each row's last one.
        Returns:
            ``(B, V)`` float32, or ``(B, T, V)``, and the batch, for ``first_nonfinite``.
        """
        batch = self._batch(first, tokens, every_position)
        logits = self.executor.forward(self._number, batch)
        self._hold(first, tokens)
        return logits, batch

    def forward_observed(
        self,
        first: int,
        tokens: Sequence[Sequence[int]],
        layers: tuple[int, ...],
        *,
        every_position: bool = False,
    ) -> tuple[torch.Tensor, Batch]:
        """Compute as ``forward``, and have the executor keep hidden states."""
        batch = self._batch(first, tokens, every_position)
        logits = self.executor.forward_observed(self._number, batch, layers)
        self._hold(first, tokens)
        return logits, batch

    def _batch(self, first: int, tokens: Sequence[Sequence[int]], every_position: bool) -> Batch:
        slots = self.held[first : first + len(tokens)]
        width = max(map(len, tokens))
        padded = tuple((*row, *[PADDING] * (width - len(row))) for row in tokens)
        lengths = tuple(map(len, tokens))
        return Batch(
            padded,
            tuple(map(len, slots)),
            first,
            every_position,
            None if min(lengths) == width else lengths,
            self._blocks.of(slice(first, first + len(tokens))),
        )

    def _hold(self, first: int, tokens: Sequence[Sequence[int]]) -> None:
        for slot, row in enumerate(tokens, start=first):
            self.held[slot].extend(row)

    def first_nonfinite(self, batch: Batch) -> str:
        """Return where NaN or infinity first appears in the batch that was just computed."""
        return self.executor.first_nonfinite(self._number, batch)

    def best(self, tokens: Sequence[int], prefer: int, start: int = 0) -> tuple[int, int]:
        """Return the slot with the longest prefix of ``tokens``, and the length of that prefix.

        Args:
            prefer: the slot to return if no other has a longer prefix.
            start: the first slot to consider.
        """
        slots = range(start, len(self.held))
        shared = {slot: shared_length(self.held[slot], tokens) for slot in slots}
        most = max(shared.values())
        return next(slot for slot in (prefer, *slots) if shared[slot] == most), most

    def shared(self, tokens: Sequence[int]) -> int:
        """Return how many of a prompt's first tokens need not be computed."""
        stored = self._store.shared(tokens) if self._store else 0
        return max(self.best(tokens, 0)[1], stored)

    def place(self, tokens: Sequence[int], slot: int, taken: Container[int], most: int) -> None:
        """Bring the longest cached prefix of a prompt into a free slot.

        Args:
            taken: the slots that belong to rows; of others the content is moved, not copied.
            most: how many tokens may come from the cache.
        """
        # Without use for a prefix, none is moved into the slot to be overwritten there.
        source, shared = self.best(tokens, slot) if most else (slot, 0)
        shared = min(shared, most)
        stored = min(self._store.shared(tokens), most) if self._store else 0
        if stored >= shared + WORTH_COPYING:
            self._store_slot(slot, 0)
            self._load(slot, tokens)
        elif source not in taken:
            self.swap(source, slot)
        elif shared >= WORTH_COPYING:
            self._store_slot(slot, 0)
            self._blocks.share(source, shared)
            self.copy(source, slot, shared)
        keep = min(shared_length(self.held[slot], tokens), max(shared, stored))
        self._store_slot(slot, keep)
        self.truncate(slot, keep)

    def _store_slot(self, slot: int, keep: int) -> None:
        """Store the prefix that a slot holds, before all but its first tokens are overwritten."""
        if self._store is not None and len(self.held[slot]) // PAGE > keep // PAGE:
            self._store.save(partial(self._blocks.locate, slot), self.held[slot])

    def _load(self, slot: int, tokens: Sequence[int]) -> None:
        assert self._store is not None
        self.truncate(slot, 0)  # true if the copy is interrupted
        length = self._store.load(slot, tokens)
        self.held[slot] = list(tokens[:length])

    def truncate(self, slot: int, length: int) -> None:
        """Drop what a slot holds from a position on."""
        del self.held[slot][length:]
        self._blocks.truncate(slot, length)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` tokens of one slot to another."""
        self.truncate(target, 0)  # true if the copy is interrupted
        self._blocks.copy(source, target, length)
        self.held[target] = self.held[source][:length]

    def swap(self, one: int, other: int) -> None:
        """Exchange what two slots hold."""
        if one == other:
            return
        held, self.held[one] = self.held[one], []
        held_by_other, self.held[other] = self.held[other], []
        self._blocks.swap(one, other, (len(held), len(held_by_other)))
        self.held[one], self.held[other] = held_by_other, held


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences, in tokens."""
    count = min(len(one), len(other))
    start = 0
    while start < count and list(one[start : start + BLOCK]) == list(other[start : start + BLOCK]):
        start += BLOCK
    while start < count and one[start] == other[start]:
        start += 1
    return min(start, count)
