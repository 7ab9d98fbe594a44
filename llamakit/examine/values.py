"""Two arrays compared, as bytes and as values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llamakit.checkpoint.dtypes import Array


@dataclass(frozen=True)
class Comparison:
    """How two runs of values differ."""

    bits: int = 0
    """How many are stored as other bits; of different dtypes, as other values."""
    values: int = 0
    """How many are another value. NaN equals NaN here, and -0.0 equals 0.0."""
    nan_in_one: int = 0
    """How many are NaN on one side only."""
    first: int | None = None
    """The first of those that are another value; if there is none, of other bits."""
    max_abs: float = 0.0
    """The largest absolute difference; NaN does not count."""
    max_rel: float = 0.0
    """The largest difference against the larger of the two magnitudes: 0 to 2."""
    worst: int | None = None
    """Where the largest absolute difference is."""


def compare(one: Array, other: Array) -> Comparison:
    """Compare two arrays of one shape.

    Returns:
        Places in it count values in row-major order.
    """
    one, other = np.ascontiguousarray(one).reshape(-1), np.ascontiguousarray(other).reshape(-1)
    if one.dtype == other.dtype:
        unequal = _bits(one) != _bits(other)
        if unequal.ndim > 1:
            unequal = unequal.any(axis=1)
        places = np.flatnonzero(unequal)
        if not places.size:
            return Comparison()
        one, other = one[places], other[places]
        exact = np.issubdtype(one.dtype, np.integer) or one.dtype == bool
    else:
        places, exact = np.arange(one.size), False
    return _compare(_wide(one), _wide(other), places, exact=exact, bits=one.dtype == other.dtype)


def merge(before: Comparison, after: Comparison, offset: int) -> Comparison:
    """Put together the comparisons of two runs, the second of which begins at ``offset``."""
    first_value = (before if before.values else after if after.values else None) or (
        before if before.bits else after
    )
    worse = after.max_abs > before.max_abs or before.worst is None
    return Comparison(
        before.bits + after.bits,
        before.values + after.values,
        before.nan_in_one + after.nan_in_one,
        _moved(first_value.first, offset if first_value is after else 0),
        max(before.max_abs, after.max_abs),
        max(before.max_rel, after.max_rel),
        _moved(after.worst, offset) if worse else before.worst,
    )


def _compare(one: Array, other: Array, places: Array, *, exact: bool, bits: bool) -> Comparison:
    one_nan, other_nan = np.isnan(one), np.isnan(other)
    unequal = ~((one == other) | (one_nan & other_nan))
    if exact:
        unequal = np.ones_like(unequal)  # integers too large for a float64 to tell apart
    counted = unequal & ~one_nan & ~other_nan
    with np.errstate(all="ignore"):
        distance = np.where(counted, np.abs(one - other), 0.0)
        relative = distance / np.maximum(np.abs(one), np.abs(other))
    relative = np.where(np.isnan(relative), np.where(np.isinf(distance), 2.0, 0.0), relative)
    values = int(unequal.sum())
    first = places[int(unequal.argmax())] if values else places[0] if bits else None
    return Comparison(
        bits=len(places) if bits else values,
        values=values,
        nan_in_one=int((one_nan != other_nan).sum()),
        first=None if first is None else int(first),
        max_abs=float(distance.max(initial=0.0)),
        max_rel=float(relative.max(initial=0.0)),
        worst=int(places[int(distance.argmax())]) if counted.any() else None,
    )


def _bits(values: Array) -> Array:
    """View values as unsigned integers; complex128 as two each."""
    width = min(values.itemsize, 8)
    unsigned = values.view(np.dtype(f"u{width}"))
    return unsigned if values.itemsize == width else unsigned.reshape(len(values), -1)


def _wide(values: Array) -> Array:
    return values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)


def _moved(place: int | None, offset: int) -> int | None:
    return None if place is None else place + offset
