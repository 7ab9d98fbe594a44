"""TIES: the largest differences to the base, those whose sign has the majority, are added to it.

Source: https://arxiv.org/abs/2306.01708; ``generalized_task_arithmetic.py`` and ``sparsify.py`` of
mergekit 0.1.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llamakit_merge.rounding import Array
from llamakit_merge.tensor_group import BlockFunction, TensorGroup
from llamakit_merge.top_k import Largest, find_largest

_NO_NORM = 1e-7


def ties(group: TensorGroup) -> BlockFunction:
    """Return the base plus the mean of the largest differences that agree on the sign."""
    base, others = group.base, group.others
    assert base is not None
    weights = group.round(group.per_model("weight", others))
    densities = [float(group.inputs[at]["density"]) for at in others]
    kept = find_largest(group, densities)
    scales = [_scale(group, largest) for largest in kept]

    def merge(row: int, blocks: Sequence[Array]) -> Array:
        deltas = []
        for at, largest, scale, weight in zip(others, kept, scales, weights, strict=True):
            delta = group.round(blocks[at] - blocks[base])
            if largest is not None:
                delta *= largest.mask(row, delta)
            if scale is not None:
                delta = group.round(delta * scale)
            deltas.append(group.round(delta * weight))
        mixed = _agreed(group, deltas, weights)
        if group.shared["lambda"] != 1:
            mixed = group.round(mixed * mixed.dtype.type(group.shared["lambda"]))
        return blocks[base] + mixed

    return merge


def _agreed(group: TensorGroup, deltas: Sequence[Array], weights: Array) -> Array:
    """Add up what has the sign of the sum, where ``normalize`` says so over its weights."""
    is_up = group.round(_total(deltas)) >= 0
    masks = [((delta > 0) & is_up) | ((delta < 0) & ~is_up) for delta in deltas]
    kept = [delta * mask for delta, mask in zip(deltas, masks, strict=True)]
    mixed: Array = group.round(_total(kept))
    if not group.shared["normalize"]:
        return mixed
    divisor: Array = _total([mask * weight for mask, weight in zip(masks, weights, strict=True)])
    divisor = group.round(divisor)
    divisor[divisor == 0] = 1
    mean: Array = group.round(mixed / divisor)
    return mean


def _total(arrays: Sequence[Array]) -> Array:
    total: Array = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total


def _scale(group: TensorGroup, largest: Largest | None) -> Array | None:
    """Return what ``rescale`` multiplies the kept differences by: their sum is that of all."""
    if largest is None or not group.shared["rescale"]:
        return None
    before, after = group.round(np.asarray([largest.total, largest.kept], np.float32))
    if min(before, after) < _NO_NORM:
        return None
    return group.round(np.atleast_1d(before / after))
