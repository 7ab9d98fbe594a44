"""Warnings that torch gives about itself, which a user cannot do anything about."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.Lock()
"""Filters hold for all threads, and the one that ends last would restore another's."""


@contextmanager
def ignored_warnings(message: str) -> Iterator[None]:
    """Ignore warnings, also where they are errors (``python -W error``).

    Args:
        message: how they begin, as a regular expression.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message)
        yield
