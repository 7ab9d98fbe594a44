"""Dtypes, and arithmetic that rounds where torch does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ml_dtypes  # noqa: F401 - makes numpy know bfloat16
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MERGE_DTYPES = ("float32", "bfloat16", "float16", "float64")
"""Those that weights are merged in."""


def promoted(dtypes: Iterable[str]) -> str:
    """Return the dtype that holds values of all these, as torch promotes them."""
    kinds = set(dtypes)
    if len(kinds) == 1:
        return kinds.pop()
    return "float64" if "float64" in kinds else "float32"


def working_dtype(dtype: str) -> np.dtype[Any]:
    """Return the dtype to compute in: float64 for float64, else float32."""
    return np.dtype("float64" if dtype == "float64" else "float32")


def rounded(values: Array, dtype: str) -> Array:
    """Round to a dtype, and return the values in the dtype that they came in."""
    stored = np.dtype(dtype)
    return values if stored == values.dtype else values.astype(stored).astype(values.dtype)
