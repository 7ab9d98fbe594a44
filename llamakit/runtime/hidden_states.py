"""Shows the hidden states of passes to observers: whole ones, on any number of ranks.

Every rank keeps those that are asked for, of one pass, until the observers have read them.
Shapes: T new positions of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch

from llamakit.runtime.model import Batch

if TYPE_CHECKING:
    from llamakit.runtime.cache_slots import CacheSlots
    from llamakit.runtime.compute_threads import ComputeThreads
    from llamakit.runtime.executor import Executor
    from llamakit.runtime.requests import RunningRow


class RowStates:
    """The hidden states of one row: the ``HiddenStates`` that one observer is called with.

    Args:
        row: its number in the pass.
        layers: that the observer has named.
    """

    def __init__(
        self,
        executor: Executor,
        row: int,
        tokens: Sequence[int],
        start: int,
        layers: Collection[int],
    ) -> None:
        self.start, self.tokens = start, tokens
        self._executor: Executor | None = executor
        self._row, self._layers = row, layers

    def hidden(self, layer: int) -> torch.Tensor:
        """Return a copy of the hidden states after a layer, ``(T, dim)``."""
        return self._source(layer).hidden_states(layer, self._row, len(self.tokens)).clone()

    def logits(self, layer: int) -> torch.Tensor:
        """Return what the output layer makes of them, ``(T, V)`` float32."""
        return self._source(layer).logits_of(layer, self._row, len(self.tokens))

    def close(self) -> None:
        """Refuse further reads: the pass is over."""
        self._executor = None

    def _source(self, layer: int) -> Executor:
        if self._executor is None:
            raise RuntimeError("hidden states are read within the call that they are passed to")
        if layer not in self._layers:
            named = ", ".join(map(str, self._layers))
            raise ValueError(f"the layer {layer} is not one of those that layers() names: {named}")
        return self._executor


def forward(
    cache: CacheSlots,
    threads: ComputeThreads,
    rows: Sequence[RunningRow],
    first: int,
    tokens: Sequence[Sequence[int]],
    *,
    every_position: bool = False,
) -> tuple[torch.Tensor, Batch]:
    """Compute as ``CacheSlots.forward``, and show the hidden states to the rows' observers.

    What an observer raises becomes its row's ``failure``.
    """
    observers = [it for row in rows for it in row.request.observers]
    with threads.limited(len(tokens) * max(map(len, tokens))):
        if not observers:
            return cache.forward(first, tokens, every_position=every_position)
        layers = tuple(dict.fromkeys(layer for it in observers for layer in it.layers))
        logits, batch = cache.forward_observed(first, tokens, layers, every_position=every_position)
    try:
        for number, row in enumerate(rows):
            _show(cache.executor, row, number, tokens[number], batch.starts[number])
    finally:
        cache.executor.drop_states()
    return logits, batch


def _show(
    executor: Executor, row: RunningRow, number: int, tokens: Sequence[int], start: int
) -> None:
    """Call each observer of a row; none after one has failed."""
    for chosen in row.request.observers:
        if row.failure is not None:
            return
        states = RowStates(executor, number, tuple(tokens), start, chosen.layers)
        try:
            with torch.inference_mode():
                chosen.observer(row, states)
        except Exception as error:  # noqa: BLE001 (of this row alone, as a sampler's)
            row.failure = error
        finally:
            states.close()
