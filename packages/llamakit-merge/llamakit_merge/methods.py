"""The merge methods, with mergekit's arithmetic: linear, SLERP, task arithmetic, passthrough.

Source: ``merge_methods/`` of mergekit 0.1.5; https://arxiv.org/abs/2203.05482 (linear),
https://arxiv.org/abs/2212.04089 (task arithmetic).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points

import numpy as np

from llamakit import LlamakitError
from llamakit_merge.rounding import Array
from llamakit_merge.tensor_group import BlockFunction, MergeMethod, ParameterSpec, TensorGroup
from llamakit_merge.ties import ties

ENTRY_POINTS = "llamakit_merge.methods"
"""The group in which packages offer a ``MergeMethod`` of theirs."""

_PARALLEL = 0.9995
"""From this cosine on, two tensors are interpolated linearly."""
_NO_NORM = 1e-8


def linear(group: TensorGroup) -> BlockFunction:
    """Return the weighted mean, or the weighted sum without ``normalize``."""
    weights = group.per_model("weight", range(len(group.inputs)))
    divisor = weights.sum() if group.shared["normalize"] else weights.dtype.type(1)
    if divisor == 0:
        raise LlamakitError(
            f"{group.name}: the weights add up to 0, so there is no mean of them; change them, or "
            "say normalize: false."
        )

    def merge(row: int, blocks: Sequence[Array]) -> Array:
        del row
        total: Array = blocks[0] * weights[0]
        for block, weight in zip(blocks[1:], weights[1:], strict=True):
            # torch adds products with one rounding, and the mean of two bfloat16 is often half-way.
            total = (total + block.astype(np.float64) * weight).astype(total.dtype)
        total /= divisor
        return total

    return merge


def slerp(group: TensorGroup) -> BlockFunction:
    """Return the point ``t`` of the way from the base to the other, on the great circle."""
    (other,) = group.others
    base = 1 - other
    squares = np.zeros(2)
    dot = 0.0
    for _, blocks in group.blocks():
        a, b = (blocks[at].astype(np.float64).ravel() for at in (base, other))
        # Sums of products, not BLAS: its threads wait for one another in each of the readers'.
        squares += (a * a).sum(), (b * b).sum()
        dot += float((a * b).sum())
    norms = np.sqrt(squares)
    norms[norms <= _NO_NORM] = 1
    cosine = float(np.clip(dot / (norms[0] * norms[1]), -1, 1))
    t = group.shared["t"]
    if abs(cosine) > _PARALLEL or np.isnan(cosine):
        left, right = 1 - t, t
    else:
        angle = np.arccos(cosine)
        left, right = (np.sin(share * angle) / np.sin(angle) for share in (1 - t, t))

    def merge(row: int, blocks: Sequence[Array]) -> Array:
        del row
        a, b = blocks[base], blocks[other]
        merged: Array = a * a.dtype.type(left) + b * b.dtype.type(right)
        return merged

    return merge


def task_arithmetic(group: TensorGroup) -> BlockFunction:
    """Return the base with the weighted differences of the others to it added."""
    base, others = group.base, group.others
    assert base is not None
    weights = group.round(group.per_model("weight", others))
    divisor = group.round(np.atleast_1d(weights.sum(dtype=weights.dtype)))
    divisor[np.abs(divisor) < _NO_NORM] = 1

    def merge(row: int, blocks: Sequence[Array]) -> Array:
        del row
        mixed = np.zeros_like(blocks[base])
        for at, weight in zip(others, weights, strict=True):
            mixed += group.round(group.round(blocks[at] - blocks[base]) * weight)
        mixed = group.round(mixed)
        if group.shared["normalize"]:
            mixed = group.round(mixed / divisor)
        if group.shared["lambda"] != 1:
            mixed = group.round(mixed * mixed.dtype.type(group.shared["lambda"]))
        return blocks[base] + mixed

    return merge


def passthrough(group: TensorGroup) -> BlockFunction:
    """Return the tensor of the one model, times ``scale`` where that is given."""
    scale = group.inputs[0]["scale"]

    def merge(row: int, blocks: Sequence[Array]) -> Array:
        del row
        block = blocks[0]
        return block if scale is None else block * block.dtype.type(scale)

    return merge


_TASK_VECTORS = (
    ParameterSpec("weight", float, "not base", required=True),
    ParameterSpec("density", float, "not base", 1.0),
    ParameterSpec("lambda", float, default=1.0),
    ParameterSpec("int8_mask", bool, default=False),  # the mask has one byte a value anyway
    ParameterSpec("rescale", bool, default=False),
)
BUILT_IN = {
    method.name: method
    for method in (
        MergeMethod(
            "linear",
            linear,
            (
                ParameterSpec("weight", float, "model", required=True),
                ParameterSpec("normalize", bool, default=True),
            ),
        ),
        MergeMethod(
            "slerp",
            slerp,
            (ParameterSpec("t", float, required=True),),
            needs_base=True,
            models=range(2, 3),
            passes=2,
        ),
        MergeMethod(
            "task_arithmetic",
            task_arithmetic,
            (*_TASK_VECTORS, ParameterSpec("normalize", bool, default=False)),
            needs_base=True,
        ),
        MergeMethod(
            "ties",
            ties,
            (*_TASK_VECTORS, ParameterSpec("normalize", bool, default=True)),
            needs_base=True,
            passes=4,
        ),
        MergeMethod(
            "passthrough",
            passthrough,
            (ParameterSpec("scale", float, "model"),),
            models=range(1, 2),
        ),
    )
}


def find_method(name: str, more: Mapping[str, MergeMethod] | None = None) -> MergeMethod:
    """Return a merge method by its name: built-in, ``more``'s, or of an installed package.

    Raises:
        LlamakitError: there is none of this name.
    """
    known = {**BUILT_IN, **(more or {})}
    if name in known:
        return known[name]
    offered = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name not in offered:
        raise LlamakitError(
            f"merge_method is {name!r:.60}, which is not merged here; expected one of "
            f"{', '.join([*known, *sorted(offered)])}."
        )
    method = offered[name].load()
    if not isinstance(method, MergeMethod):
        raise LlamakitError(
            f"merge_method {name!r:.60} of {offered[name].value} is a {type(method).__name__}; "
            "expected a MergeMethod: tell the author of the package."
        )
    return method
