"""Checks of numbers that Python callers give; the command line's options check their own."""

from __future__ import annotations

import math
import operator
from typing import Any

from llamakit.errors import UsageError


def check_counts(**counts: Any) -> None:
    """Refuse what is no whole number of 1 or more; None is left out.

    Raises:
        UsageError: it names the argument.
    """
    for name, count in counts.items():
        if count is not None and not is_whole(count):
            raise UsageError(f"{name} is {count!r:.40}; it has to be a whole number, 1 or more")
        check_at_least_1(**{name: count})


def check_at_least_1(**numbers: Any) -> None:
    """Refuse what is no finite number of 1 or more; None is left out.

    Raises:
        UsageError: it names the argument.
    """
    for name, number in numbers.items():
        if number is None:
            continue
        if isinstance(number, (bool, str)) or not hasattr(number, "__float__"):
            raise UsageError(f"{name} is {number!r:.40}; it has to be a number")
        if not 1 <= number < math.inf:
            raise UsageError(f"{name} is {number!s:.40}; it has to be 1 or more")


def is_whole(value: Any) -> bool:
    """Tell whether a value is a whole number, of Python's, numpy's or torch's; no bool is."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)
