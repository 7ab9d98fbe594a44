"""Model and cache operations that run on all ranks together: compute a batch, manage the cache.

Rank 0 calls a method; the call is sent to the other ranks, which ``follow``, and then carried out
on all of them. On one rank nothing is sent.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from llamakit.runtime.group import Group
from llamakit.runtime.kv_cache import KVCache
from llamakit.runtime.model import Batch, Transformer


class Executor:
    """One model on this rank, and the caches that are open on it.

    Args:
        group: the ranks that hold the other slices of the model.
    """

    def __init__(self, model: Transformer, group: Group) -> None:
        self.model = model
        self.group = group
        self._caches: dict[int, KVCache] = {}
        self._pages: dict[int, tuple[torch.Tensor, ...]] = {}
        self._opened = self._saved = 0
        self._states: dict[int, torch.Tensor] = {}
        self._number = group.register(self)

    def open_cache(self, slots: int, length: int) -> int:
        """Allocate a cache on every rank; return its number."""
        with self._together("open_cache", slots, length):
            self._opened += 1
            self._caches[self._opened] = self.model.new_cache(slots, length)
        return self._opened

    def close_cache(self, cache: int) -> None:
        """Free a cache on every rank."""
        with self._together("close_cache", cache):
            self._caches.pop(cache, None)

    def resize_cache(self, cache: int, slots: int, length: int, kept: tuple[int, int]) -> None:
        """Change the size of an open cache, on every rank.

        Args:
            kept: how many slots are kept, and positions of each; 0 frees the old memory first.
        """
        with self._together("resize_cache", cache, slots, length, kept):
            old = self._caches.pop(cache) if kept[1] else None
            self._caches.pop(cache, None)
            new = self._caches[cache] = self.model.new_cache(slots, length)
            if old is not None:
                new.fill(old, *kept)

    def copy(self, cache: int, source: int, target: int, start: int, stop: int) -> None:
        """Copy keys and values of one slot to another slot, on every rank."""
        with self._together("copy", cache, source, target, start, stop):
            self._caches[cache].copy(source, target, start, stop)

    def swap(self, cache: int, one: int, other: int, start: int, stop: int) -> None:
        """Exchange keys and values of two slots, on every rank."""
        with self._together("swap", cache, one, other, start, stop):
            self._caches[cache].swap(one, other, start, stop)

    def release(self, cache: int, slot: int, stop: int) -> None:
        """Free the memory of a slot's first positions, on every rank."""
        with self._together("release", cache, slot, stop):
            self._caches[cache].release(slot, stop)

    def position_nbytes(self, cache: int) -> int:
        """Return how many bytes one position of a slot has on this rank, in all layers."""
        return self._caches[cache].position_nbytes * len(self._caches[cache].keys)

    def save_page(self, cache: int, slot: int, start: int, stop: int) -> int:
        """Copy some positions of a slot to a new page, on every rank; return its number."""
        with self._together("save_page", cache, slot, start, stop):
            self._saved += 1
            self._pages[self._saved] = self._caches[cache].page(slot, start, stop)
        return self._saved

    def load_page(self, cache: int, slot: int, start: int, page: int) -> None:
        """Copy a page to a slot, from a position on, on every rank."""
        with self._together("load_page", cache, slot, start, page):
            self._caches[cache].restore(slot, start, self._pages[page])

    def drop_page(self, page: int) -> None:
        """Free a page on every rank."""
        with self._together("drop_page", page):
            self._pages.pop(page, None)

    def forward(self, cache: int, batch: Batch) -> torch.Tensor:
        """Compute a batch on every rank.

        Returns:
            Logits as ``Transformer.forward``, the same on every rank.
        """
        with self._together("forward", cache, batch):
            logits: torch.Tensor = self.model(batch, self._caches[cache])
        return logits

    def forward_observed(self, cache: int, batch: Batch, layers: tuple[int, ...]) -> torch.Tensor:
        """Compute as ``forward``; every rank keeps hidden states until ``drop_states``.

        Args:
            layers: as for ``Transformer.forward_observed``.
        """
        with self._together("forward_observed", cache, batch, layers):
            logits, self._states = self.model.forward_observed(batch, self._caches[cache], layers)
        return logits

    def hidden_states(self, layer: int, row: int, count: int) -> torch.Tensor:
        """Return a row's hidden states, ``(count, dim)``, the same on every rank."""
        return self._states[layer][row, :count]

    def logits_of(self, layer: int, row: int, count: int) -> torch.Tensor:
        """Apply the output layer to a row's hidden states on every rank: ``(count, V)``."""
        with self._together("logits_of", layer, row, count):
            return self.model.logits_of(self.hidden_states(layer, row, count), layer)

    def drop_states(self) -> None:
        """Free the hidden states on every rank."""
        with self._together("drop_states"):
            self._states = {}

    def first_nonfinite(self, cache: int, batch: Batch) -> str:
        """Compute a batch again, on every rank; return where NaN or infinity first appears."""
        with self._together("first_nonfinite", cache, batch):
            return self.model.first_nonfinite(batch, self._caches[cache])

    def _together(self, method: str, *arguments: object) -> AbstractContextManager[None]:
        return self.group.call(self._number, method, arguments)
