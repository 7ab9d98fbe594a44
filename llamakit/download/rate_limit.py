"""A limit on bytes per second, shared by all connections."""

from __future__ import annotations

import threading
import time

from llamakit.errors import OptionError
from llamakit.plugin_manager.option_types import number

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


class RateLimit:
    """Computes how long to wait so that the limit is kept.

    Args:
        nbytes: per second.
    """

    def __init__(self, nbytes: float) -> None:
        self._nbytes = nbytes
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def delay(self, nbytes: int) -> float:
        """Count received bytes; return how many seconds to wait before reading more."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + nbytes / self._nbytes
            return self._free_at - now


def read_rate(text: str) -> float:
    """Read a number of bytes a second, such as ``500k``, ``10M`` or ``1.5MB``.

    Raises:
        OptionError: it is not one.
    """
    plain = text.strip().lower().removesuffix("/s").removesuffix("b")
    unit = plain[-1:] if plain[-1:] in _UNITS else ""
    try:
        nbytes = number(plain.removesuffix(unit) if unit else plain) * _UNITS[unit]
    except ValueError:
        nbytes = 0.0
    if not 1 <= nbytes < float("inf"):
        raise OptionError(
            f"--limit-rate: {text!r} is not a rate; expected bytes per second, such as 500k, "
            "10M or 1.5MB"
        )
    return nbytes
