"""Observers, which read the hidden states of the positions that a model computes.

Shapes: T new positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from llamakit.protocols.generation import Row

if TYPE_CHECKING:
    import torch

__all__ = ["FINAL_STATES", "DrawingObserver", "HiddenStates", "Observer", "ObserverFactory"]

FINAL_STATES = -1
"""In place of a number of layers: the hidden states after the final norm."""


class HiddenStates(Protocol):
    """The hidden states that one pass has computed for one row: whole, on any number of ranks.

    They are there during the call that they are passed to, and no longer.
    """

    start: int
    """The position of the first of them in the row's ``tokens``."""
    tokens: Sequence[int]
    """The T tokens at these positions."""

    def hidden(self, layer: int) -> torch.Tensor:
        """Return a copy of the hidden states, ``(T, dim)`` in what the model computes in.

        Args:
            layer: one of those that the observer's ``layers`` names.
        """
        ...

    def logits(self, layer: int) -> torch.Tensor:
        """Return what the final norm and the output layer make of them, ``(T, V)`` float32.

        All ranks compute it together. Asked of the last layer, it is the model's own logits.

        Args:
            layer: one of those that the observer's ``layers`` names.
        """
        ...


class Observer(Protocol):
    """Reads the hidden states of rows and changes nothing.

    One observer may see several rows at the same time. What it remembers of each from one pass to
    the next, it keeps in ``row.state`` under a key of its own, such as itself. A row's positions
    come in their order, each once, the prompt's in passes of many; there are none for the last
    token of an answer that has reached its limit, which the model never reads.
    """

    def layers(self, count: int) -> Sequence[int]:
        """Say which hidden states are read.

        Args:
            count: how many layers the model has.
        Returns:
            Numbers of layers that they come after: 0 is the embeddings, ``count`` the last layer,
            ``FINAL_STATES`` the final norm after it. Each costs memory during a pass.
        """
        ...

    def __call__(self, row: Row, states: HiddenStates, /) -> None:
        """Read what a pass has computed. It is called on rank 0, in ``inference_mode``."""
        ...

    def result(self, row: Row, /) -> Any:
        """Return what was found, when the row has ended: what JSON can hold."""
        ...


class DrawingObserver(Observer, Protocol):
    """An observer that also makes files of what it has found, such as a picture."""

    def files(self, result: Any, /) -> Mapping[str, str | bytes]:
        """Return the contents of files by the ending of their names, such as ``{"svg": "…"}``.

        Args:
            result: what ``result`` has returned; it is written with the ending ``json`` anyway.
        """
        ...


ObserverFactory = Callable[..., Observer]
