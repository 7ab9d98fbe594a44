"""Rounds weights to 8 or 4 bits, and back, bit for bit as ``runtime.kernels.quantized`` does.

Here it is numpy, since conversions import no torch. Each operation is one of IEEE's, in float32
and in the same order, so both give the same bits. Rows are rounded by themselves: any split of a
weight into rows, and in 4 bits into groups, gives the same.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from llamakit.checkpoint.dtypes import Array
from llamakit.checkpoint.layout import OUTPUT, layer_shapes
from llamakit.checkpoint.llama4 import architecture_of
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.shard_plan import copies
from llamakit.errors import DamagedFileError, UnsupportedModelError
from llamakit.protocols import Quantization, QuantizedWeight

GROUP = 32
"""How many neighboring values share a step and a middle in 4 bits."""
BLOCK_ROWS = 16
"""The operators of 4 bits multiply so many rows at a time."""
_PACKED_TOGETHER = (
    ("attention.wq.weight", "attention.wk.weight", "attention.wv.weight"),
    ("attention.wo.weight",),
    ("feed_forward.w1.weight", "feed_forward.w3.weight"),
    ("feed_forward.w2.weight",),
)
"""The weights of a layer whose outputs one multiplication computes."""
_BY_COLUMNS = ("attention.wo.weight", "feed_forward.w2.weight")


def round_int8(weight: Array) -> QuantizedWeight:
    """Round each row to 255 steps.

    Args:
        weight: ``(N, K)``, of any dtype of plain numbers.
    """
    rows = _wide(weight)
    step = np.maximum(np.abs(rows).max(1) / np.float32(127), np.float32(1e-30))
    with np.errstate(invalid="ignore"):  # of NaN: whoever asked refuses the scales
        values = np.rint(rows / step[:, None]).astype(np.int8)
    return QuantizedWeight("int8", values, step)


def round_int4(weight: Array) -> QuantizedWeight:
    """Round each group of a row to 16 steps between its least and its largest value.

    Args:
        weight: ``(N, K)``, K a multiple of ``GROUP``.
    """
    groups = _wide(weight).reshape(len(weight), -1, GROUP)  # (N, K/G, G)
    least, most = groups.min(-1), groups.max(-1)
    step = np.maximum((most - least) / np.float32(15), np.float32(1e-8))
    step = step.astype(ml_dtypes.bfloat16)
    wide = step.astype(np.float32)
    middle = (least + wide * np.float32(8)).astype(ml_dtypes.bfloat16)
    with np.errstate(invalid="ignore"):
        values = (groups - middle.astype(np.float32)[..., None]) / wide[..., None] + np.float32(8)
        numbers = np.clip(np.rint(values), 0, 15).astype(np.uint8).reshape(len(weight), -1)
    packed = numbers[:, ::2] | numbers[:, 1::2] << 4
    return QuantizedWeight("int4", packed, np.stack((step, middle), -1))


def multiplied_out(weight: QuantizedWeight) -> Array:
    """Return the values that are computed with, ``(N, K)`` float32."""
    if weight.kind == "int8":
        return np.asarray(weight.values * weight.scales[:, None])
    numbers = np.stack((weight.values & 15, weight.values >> 4), -1).reshape(len(weight.values), -1)
    scales = weight.scales.astype(np.float32)
    groups = numbers.reshape(*scales.shape[:2], GROUP).astype(np.float32) - 8  # (N, K/G, G)
    return np.asarray((groups * scales[..., :1] + scales[..., 1:]).reshape(numbers.shape))


def check_scales(name: str, weight: QuantizedWeight) -> None:
    """Refuse scales that no rounding gives: the steps are positive, and all are finite.

    Raises:
        DamagedFileError: one is not.
    """
    scales = weight.scales.astype(np.float32)
    wrong = ~np.isfinite(scales)
    if weight.kind == "int8":
        wrong |= scales <= 0
    else:
        wrong[..., 0] |= scales[..., 0] <= 0
    if not wrong.any():
        return
    row = int(np.argwhere(wrong)[0, 0])
    raise DamagedFileError(
        f"{name}: a scale of row {row} is zero, negative or no number; the file is damaged, or was "
        "made by a tool with a fault. Copy it again."
    )


def kinds_of(params: ModelParams, quantize: Quantization) -> dict[str, Quantization]:
    """Say how each weight of a model is rounded, on any number of ranks alike.

    Returns:
        By name; what is not named keeps its values.

    Raises:
        UnsupportedModelError: Llama 4, whose experts are stored transposed.
    """
    if architecture_of(params) is not None:
        raise UnsupportedModelError(
            "weights of Llama 4 are not stored quantized: its experts are rounded along the other "
            f"axis than they are stored on. Use --quantize {quantize} on the model itself."
        )
    kinds: dict[str, Quantization] = {OUTPUT: "int8"}
    for names in _PACKED_TOGETHER:
        kind: Quantization = "int8"
        if quantize == "int4" and all(fits_int4(name, params, 1) for name in names):
            kind = "int4"
        for layer in range(params.n_layers):
            kinds |= {f"layers.{layer}.{name}": kind for name in names}
    return kinds


def fits_int4(name: str, params: ModelParams, size: int) -> bool:
    """Say whether the slices of a weight on ``size`` ranks are whole groups and blocks of rows.

    Args:
        name: within a layer, such as ``attention.wo.weight``.
    """
    shapes = layer_shapes(params, 0)
    (together,) = (names for names in _PACKED_TOGETHER if name in names)
    columns = shapes[name][1]
    if name in _BY_COLUMNS:
        return shapes[name][0] % BLOCK_ROWS == 0 and columns % (size * GROUP) == 0
    rows = sum(
        shapes[other][0] * copies(f"layers.0.{other}", params, size) // size for other in together
    )
    return rows % BLOCK_ROWS == 0 and columns % GROUP == 0


def _wide(weight: Array) -> Array:
    """Return float32; of bfloat16 by a shift, which is many times quicker than a cast."""
    if weight.dtype != ml_dtypes.bfloat16:
        return weight.astype(np.float32)
    return (weight.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
