"""One tensor of every model, and what a merge method is to be called with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from llamakit_merge.block_checkpoint import row_blocks
from llamakit_merge.rounding import Array, rounded, working_dtype

BlockFunction = Callable[[int, Sequence[Array]], Array]
"""``merge(row, blocks)``: the merged rows from ``row`` on, of the same rows of each model.

Blocks are float32 (float64 in a merge of float64), one for each model, in order; none is changed.
It is called from several threads, in any order of rows.
"""


@dataclass(frozen=True)
class TensorGroup:
    """The same tensor of all models of a merge."""

    name: str
    """Meta's name in the result, such as ``layers.0.attention.wq.weight``."""
    shape: tuple[int, ...]
    dtype: str
    """The dtype that is merged in: values are rounded to it as torch would."""
    base: int | None
    """Which of the models is ``base_model``."""
    shared: Mapping[str, Any]
    """The values of the method's parameters of the whole merge, by name."""
    inputs: Sequence[Mapping[str, Any]]
    """Those of each model."""
    read: Callable[[int, int], list[Array]]
    """``read(start, stop)``: these rows of each model, in order, as blocks."""

    @property
    def others(self) -> list[int]:
        """The models that are not the base."""
        return [index for index in range(len(self.inputs)) if index != self.base]

    def round(self, values: Array) -> Array:
        """Round to the dtype of the merge."""
        return rounded(values, self.dtype)

    def per_model(self, name: str, models: Sequence[int]) -> Array:
        """Return a parameter of some models, in the dtype to compute in."""
        return np.asarray([self.inputs[at][name] for at in models], working_dtype(self.dtype))

    def blocks(self) -> Iterator[tuple[int, list[Array]]]:
        """Yield all rows, a block at a time, each with its first row: for a pass over the whole."""
        for start, stop in row_blocks(self.shape, 0, self.shape[0]):
            yield start, self.read(start, stop)


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter of a merge method, as the YAML has it under ``parameters``."""

    name: str
    kind: type[float] | type[bool]
    scope: Literal["shared", "model", "not base"] = "shared"
    """One value for the merge, one for each model, or one for each but the base."""
    default: float | bool | None = None
    required: bool = False


@dataclass(frozen=True)
class MergeMethod:
    """A way to merge one tensor of several models."""

    name: str
    """What the YAML calls it."""
    prepare: Callable[[TensorGroup], BlockFunction]
    """Called once a tensor; passes over the whole (norms, thresholds) are made here."""
    parameters: tuple[ParameterSpec, ...] = ()
    needs_base: bool = False
    models: range = range(1, 1 << 16)
    """How many models it takes, the base included."""
    passes: int = 1
    """How often the weights are read at most: by ``prepare``, and to be merged."""
