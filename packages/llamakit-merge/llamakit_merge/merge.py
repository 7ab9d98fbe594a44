"""A checkpoint with an adapter added to it. Its values are on no disk: they are made when read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from llamakit import LlamakitError
from llamakit.protocols import Checkpoint
from llamakit_merge.adapter import Factors, read_adapter


class Merged:
    """A checkpoint whose matrices are ``W + left @ right`` where an adapter has factors."""

    form = "merge-lora"

    def __init__(self, checkpoint: Checkpoint, factors: dict[str, Factors]) -> None:
        self.path = checkpoint.path
        self.params = checkpoint.params
        self.parameters = checkpoint.parameters
        self.changed = tuple(factors)
        """The names of the parameters that the adapter changes."""
        self._checkpoint = checkpoint
        self._factors = factors

    @property
    def nbytes_read(self) -> int:
        """How many bytes of weights have been read so far."""
        return self._checkpoint.nbytes_read

    def read(
        self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None
    ) -> np.ndarray:
        """Read a slice of the checkpoint, and add that slice of the product to it.

        The sum is rounded once, from float32 to what the checkpoint stores.
        """
        weight = self._checkpoint.read(name, axis=axis, start=start, stop=stop)
        if name not in self._factors:
            return weight
        left, right = self._factors[name]  # (rows, rank), (rank, columns)
        if axis == 0:
            left = left[start:stop]
        else:
            right = right[:, start:stop]
        return (weight.astype(np.float32) + left @ right).astype(weight.dtype)


def merge(checkpoint: Checkpoint, folder: str | Path) -> Merged:
    """Add an adapter to a checkpoint; nothing is read of the weights yet.

    Args:
        checkpoint: of any format that llamakit opens.
        folder: what PEFT's ``save_pretrained`` wrote.

    Raises:
        LlamakitError: it is no adapter, one of another kind, or one of another model.
    """
    factors = read_adapter(Path(folder), checkpoint.params.head_dim)
    for name, (left, right) in factors.items():
        parameter = checkpoint.parameters.get(name)
        shape = (left.shape[0], right.shape[1])
        if parameter is None or parameter.shape != shape:
            found = "no such parameter" if parameter is None else f"one of {parameter.shape}"
            raise LlamakitError(
                f"{folder} changes {name} of shape {shape}, and {checkpoint.path} has {found}: "
                "the adapter was trained on another model; pass that one."
            )
    return Merged(checkpoint, factors)
