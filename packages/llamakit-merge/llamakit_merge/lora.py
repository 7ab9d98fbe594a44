"""A checkpoint with adapters merged into it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from llamakit import LlamakitError
from llamakit.protocols import Checkpoint
from llamakit_merge.adapter import EMBEDDING, OUTPUT, Adapter, Change
from llamakit_merge.block_checkpoint import BlockCheckpoint, row_blocks
from llamakit_merge.rounding import Array


class MergedAdapter(BlockCheckpoint):
    """A checkpoint with adapters merged into it, one after the other.

    A sum is rounded once, from float32 to what the checkpoint stores.

    Args:
        base: the model.
        adapters: they fit it.
        shares: how much each counts.

    Raises:
        LlamakitError: two adapters bring the same parameter as a whole, or one that counts other
            than 1 brings any.
    """

    def __init__(
        self, base: Checkpoint, adapters: Sequence[Adapter], shares: Sequence[float]
    ) -> None:
        _check_whole(adapters, shares)
        params, parameters = base.params, dict(base.parameters)
        self._is_untied = params.tied_embeddings and any(adapter.unties for adapter in adapters)
        if self._is_untied:
            params = replace(params, tied_embeddings=False)
            parameters[OUTPUT] = replace(parameters[EMBEDDING], name=OUTPUT, axis=0)
        reads = [adapter.path for adapter in adapters]
        super().__init__("merge-lora", base, params, parameters, [base], reads)
        changed = {name for adapter in adapters for name in adapter.changes if name in parameters}
        self.changed = tuple(name for name in parameters if name in changed)
        """The names of the parameters that the adapters change."""
        self._changed = changed
        self._base = base
        self._adapters = list(zip(adapters, shares, strict=True))
        self._factors: dict[tuple[int, str], Array] = {}
        self._computing = threading.Lock()

    def unchanged(self, name: str) -> Checkpoint | None:
        """Return the model where no adapter changes a parameter."""
        return self._base if name not in self._changed and name in self._base.parameters else None

    def compute(self, name: str, start: int, stop: int) -> Array:
        """Return rows ``start:stop``: the model's, and what the adapters make of them."""
        base = self._before(name, start, stop)
        values = base
        for index, (adapter, share) in enumerate(self._adapters):
            change = adapter.changes.get(name)
            if change is not None and change.left is not None:
                delta = _delta(change, share, start, stop)
                values = values + delta
                if change.magnitude is not None:
                    values = values * self._factor(index, name, base + delta, start, stop)
        return values

    def _stored(self, name: str, start: int, stop: int) -> Array:
        name = EMBEDDING if name == OUTPUT and self._is_untied else name
        return self._base.read(name, start=start, stop=stop)

    def _before(self, name: str, start: int, stop: int) -> Array:
        """Return rows in float32 as they are before anything is added to them."""
        for adapter, _ in self._adapters:
            change = adapter.changes.get(name)
            if change is not None and change.whole is not None:
                return change.whole.rows(start, stop)
        return self._stored(name, start, stop).astype(np.float32)

    def _factor(self, index: int, name: str, sums: Array, start: int, stop: int) -> Array:
        """Return what DoRA multiplies rows by: of an embedding each column, else each row.

        Args:
            sums: the model's rows with this adapter's product added.
        """
        change = self._adapters[index][0].changes[name]
        assert change.magnitude is not None
        if name != EMBEDDING:
            norms = np.linalg.norm(sums, axis=1)
            factors: Array = (change.magnitude.rows(start, stop) / norms)[:, None]
            return factors
        with self._computing:
            if (index, name) not in self._factors:
                norms = self._column_norms(index, name, change)
                self._factors[index, name] = change.magnitude.all() / norms
        return self._factors[index, name]

    def _column_norms(self, index: int, name: str, change: Change) -> Array:
        share = self._adapters[index][1]
        shape = self.parameters[name].shape
        squares = np.zeros(shape[1])
        for start, stop in row_blocks(shape, 0, shape[0]):
            sums = self._before(name, start, stop) + _delta(change, share, start, stop)
            squares += np.square(sums, dtype=np.float64).sum(axis=0)
        norms: Array = np.sqrt(squares).astype(np.float32)
        return norms


def _delta(change: Change, share: float, start: int, stop: int) -> Array:
    assert change.left is not None
    assert change.right is not None
    left = change.left.rows(start, stop) * np.float32(change.scale * share)
    delta: Array = left @ change.right.all()
    return delta


def _check_whole(adapters: Sequence[Adapter], shares: Sequence[float]) -> None:
    names = Counter(
        name for adapter in adapters for name, change in adapter.changes.items() if change.whole
    )
    for adapter, share in zip(adapters, shares, strict=True):
        for name, change in adapter.changes.items():
            if change.whole and (share != 1 or names[name] > 1):
                why = "another brings it too" if share == 1 else f"a share of {share:g} is none"
                raise LlamakitError(
                    f"{adapter.path} brings {name} as a whole, and {why}; merge the adapters one "
                    "by one, with weight 1."
                )
