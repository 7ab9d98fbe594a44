"""Which ids the slots of a cache hold, so that none is computed twice."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llamakit.runtime.executor import Executor
from llamakit.runtime.model import Batch

PADDING = 0
"""The id behind the end of a row that is shorter than its neighbours: any will do."""

BLOCK = 64
"""How many ids are compared at once."""


class CacheSlots:
    """A cache on every rank, with the ids whose keys and values each slot holds.

    What a slot holds stays when its row has ended: the next prompt that begins alike needs only
    the rest computed.

    Args:
        count: how many slots.
        length: the longest sequence, in ids.
    """

    def __init__(self, executor: Executor, count: int, length: int) -> None:
        self.executor = executor
        self.length = length
        self.held: list[list[int]] = [[] for _ in range(count)]
        self._number = executor.open_cache(count, length)

    def fit(self, count: int, length: int) -> None:
        """Make room for ``count`` sequences of ``length`` ids; what fits there goes on."""
        if count <= len(self.held) and length <= self.length:
            return
        held = [ids[:length] for ids in self.held[:count]]
        self.held, self.length = [[] for _ in range(count)], length
        longest = max(map(len, held))
        self.executor.resize_cache(self._number, count, length, longest)
        self.held[: len(held)] = held

    def close(self) -> None:
        """Free the cache."""
        self.executor.close_cache(self._number)

    def forward(
        self, first: int, tokens: Sequence[Sequence[int]], *, every_position: bool = False
    ) -> tuple[torch.Tensor, Batch]:
        """Compute the next ids of neighbouring slots, each behind what it holds.

        Args:
            first: the slot of the first row.
            tokens: B rows of at least one id; T is the longest one's length.
            every_position: logits of all T positions instead of each row's last one.
        Returns:
            ``(B, V)`` float32, or ``(B, T, V)``, and the batch, for ``first_nonfinite``.
        """
        slots = self.held[first : first + len(tokens)]
        width = max(map(len, tokens))
        padded = tuple((*row, *[PADDING] * (width - len(row))) for row in tokens)
        lengths = tuple(map(len, tokens))
        batch = Batch(
            padded,
            tuple(map(len, slots)),
            first,
            every_position,
            None if min(lengths) == width else lengths,
        )
        logits = self.executor.forward(self._number, batch)
        for held, row in zip(slots, tokens, strict=True):
            held.extend(row)
        return logits, batch

    def first_nonfinite(self, batch: Batch) -> str:
        """Say where NaN or infinity first shows in a batch that has just been computed."""
        return self.executor.first_nonfinite(self._number, batch)

    def best(self, tokens: Sequence[int], prefer: int, start: int = 0) -> tuple[int, int]:
        """Return the slot that holds most of the beginning of ``tokens``, and how many ids of it.

        Args:
            prefer: the slot to take if it holds as many as any other.
            start: the first slot to look at.
        """
        slots = range(start, len(self.held))
        shared = {slot: shared_length(self.held[slot], tokens) for slot in slots}
        most = max(shared.values())
        return next(slot for slot in (prefer, *slots) if shared[slot] == most), most

    def truncate(self, slot: int, length: int) -> None:
        """Forget what a slot holds from a position on."""
        del self.held[slot][length:]

    def copy(self, source: int, target: int, length: int) -> None:
        """Have a slot hold the first ``length`` ids of another one."""
        self.held[target] = []  # so it is, if the copy is interrupted
        self.executor.copy(self._number, source, target, length)
        self.held[target] = self.held[source][:length]

    def swap(self, one: int, other: int) -> None:
        """Exchange what two slots hold."""
        if one == other:
            return
        held, self.held[one] = self.held[one], []
        held_by_other, self.held[other] = self.held[other], []
        longest = max(len(held), len(held_by_other))
        if held and held_by_other:
            self.executor.swap(self._number, one, other, longest)
        elif longest:
            source, target = (one, other) if held else (other, one)
            self.executor.copy(self._number, source, target, longest)
        self.held[one], self.held[other] = held_by_other, held


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two sequences have in common from their beginning on."""
    count = min(len(one), len(other))
    start = 0
    while start < count and list(one[start : start + BLOCK]) == list(other[start : start + BLOCK]):
        start += BLOCK
    while start < count and one[start] == other[start]:
        start += 1
    return min(start, count)
