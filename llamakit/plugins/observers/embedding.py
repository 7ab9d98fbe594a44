"""An embedding: one vector of a sequence, pooled from its hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from llamakit import hookimpl
from llamakit.protocols import FINAL_STATES

if TYPE_CHECKING:
    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import HiddenStates, Observer, ObserverFactory, Row


class Embedding:
    """Adds up the hidden states of a row, or keeps the newest."""

    def __init__(self, pooling: str, layer: int) -> None:
        self._mean = pooling == "mean"
        self._layer = layer

    def layers(self, count: int) -> list[int]:
        """Return the layer. Raises ValueError: the model has fewer."""
        if self._layer > count:
            raise ValueError(f"layer is {self._layer}, and the model has {count} layers")
        return [self._layer]

    def __call__(self, row: Row, states: HiddenStates, /) -> None:
        """Pool the hidden states of new positions with those before."""
        hidden = states.hidden(self._layer).float()  # (T, dim)
        pooled = hidden.sum(0) if self._mean else hidden[-1]
        row.state[self] = pooled + row.state[self] if self._mean and self in row.state else pooled

    def result(self, row: Row, /) -> list[float]:
        """Return the vector, ``dim`` numbers: of a sum and of a mean, it is the same."""
        pooled: torch.Tensor = row.state[self]
        vector: list[float] = (pooled / pooled.norm().clamp(min=1e-12)).tolist()
        return vector


def embedding(pooling: Literal["mean", "last"] = "mean", layer: int = FINAL_STATES) -> Observer:
    """Make one vector of unit length of a prompt and its answer.

    Args:
        pooling: the mean of all tokens' hidden states, or the last token's.
        layer: after how many layers, from 0 for the embeddings; -1 is after the final norm.
    """
    if layer < FINAL_STATES:
        raise ValueError(f"layer is {layer}; it has to be {FINAL_STATES} or more")
    return Embedding(pooling, layer)


@hookimpl
def register_observers(observers: Registrar[ObserverFactory]) -> None:
    """Offer ``embedding``."""
    observers.register("embedding", embedding, help="one vector, pooled from the hidden states")
