"""Observers: they read the hidden states of a request's passes.

Shapes: T new positions, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

FINAL = -1
"""The hidden states after the final norm, which the output layer sees."""


class Observer(Protocol):
    """Reads the hidden states of a request. It is called on rank 0 alone and changes nothing."""

    @property
    def layers(self) -> Sequence[int]:
        """After how many layers, from 0 for the embeddings; ``FINAL`` is after the final norm."""
        ...

    def __call__(self, state: dict[Any, Any], start: int, hidden: torch.Tensor, /) -> None:
        """Read what a pass has computed.

        Args:
            state: of the row, kept from one pass to the next.
            start: the first position.
            hidden: ``(L, T, dim)``, in the order of ``layers``.
        """
        ...

    def result(self, state: dict[Any, Any], /) -> Any:
        """Return what is found when the row ends: numbers, strings and lists of them."""
        ...


class Pooling:
    """Makes one vector of a prompt, of unit length.

    Args:
        pooling: ``mean`` of all tokens, or the ``last`` token.
    """

    layers = (FINAL,)

    def __init__(self, pooling: str = "mean") -> None:
        self._mean = pooling == "mean"

    def __call__(self, state: dict[Any, Any], _start: int, hidden: torch.Tensor, /) -> None:
        """Add up the hidden states, or keep the newest."""
        with torch.inference_mode():
            (positions,) = hidden.float()  # (T, dim)
            summed = positions.sum(0) if self._mean else positions[-1]
            state[self] = summed + state[self] if self._mean and self in state else summed

    def result(self, state: dict[Any, Any], /) -> list[float]:
        """Return the vector, ``dim`` numbers."""
        vector: list[float] = torch.nn.functional.normalize(state[self], dim=0).tolist()
        return vector
