"""Rounds the rows of a batch, on all cores."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from llamakit.checkpoint.dtypes import Array
from llamakit.checkpoint.rounding import round_int4, round_int8
from llamakit.cores import available_cores
from llamakit.errors import UnsupportedModelError
from llamakit.protocols import Quantization, QuantizedWeight

_VALUES = 1 << 17
"""How many values are rounded at a time: their float32 copies stay in the cache of a core."""


def round_rows(name: str, rows: Array, kind: Quantization) -> tuple[Array, Array]:
    """Round whole rows of a weight.

    Args:
        name: of the weight, for messages.
        rows: ``(N, K)``.
    Returns:
        The integers and the scales, each ``(N, bytes of a row)`` uint8.

    Raises:
        UnsupportedModelError: there is NaN or infinity among the values.
    """
    step = max(1, _VALUES // rows.shape[1])
    blocks = [rows[start : start + step] for start in range(0, len(rows), step)]
    rounded = list(_threads().map(round_int4 if kind == "int4" else round_int8, blocks))
    for weight in rounded:
        if not np.isfinite(weight.scales.astype(np.float32)).all():
            raise UnsupportedModelError(
                f"{name} has NaN, infinite or very large values, which cannot be rounded to "
                f"{kind}; llamakit verify --deep counts them. Take another copy of the model."
            )
    return _bytes(rounded, "values"), _bytes(rounded, "scales")


def packed(integers: Array) -> Array:
    """Add 128 to integers of 8 bits, and fill rows up to whole int32.

    Args:
        integers: ``(N, K)`` uint8, the bytes of int8.
    """
    raised = integers ^ 128  # flips the highest bit
    return np.pad(raised, ((0, 0), (0, -raised.shape[1] % 4)))


def _bytes(rounded: list[QuantizedWeight], part: str) -> Array:
    array = np.concatenate([getattr(weight, part) for weight in rounded])
    return np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(available_cores(), "llamakit-round")
