"""Shows the hidden states of passes to observers, the same on any number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from llamakit.runtime.model import Batch

if TYPE_CHECKING:
    from llamakit.runtime.cache_slots import CacheSlots
    from llamakit.runtime.requests import RunningRow


def forward(
    cache: CacheSlots,
    rows: Sequence[RunningRow],
    first: int,
    tokens: Sequence[Sequence[int]],
    *,
    every_position: bool = False,
) -> tuple[torch.Tensor, Batch]:
    """Compute as ``CacheSlots.forward``, and show the hidden states to the rows' observers."""
    observers = [it for row in rows for it in row.request.observers]
    layers = tuple(dict.fromkeys(layer for it in observers for layer in it.layers))
    if not layers:
        return cache.forward(first, tokens, every_position=every_position)
    logits, batch, states = cache.forward_observed(
        first, tokens, layers, every_position=every_position
    )
    for number, row in enumerate(rows):
        for observer in row.request.observers:
            chosen = [layers.index(layer) for layer in observer.layers]
            hidden = states[chosen, number, : len(tokens[number])]
            observer(row.state, batch.starts[number], hidden)
    return logits, batch
