"""What the environment says of the ranks: torchrun's variables, checked before torch reads them.

Nothing here imports torch, so that a wrong variable is reported at once.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from llamakit.errors import ParallelError
from llamakit.plugin_manager.option_types import number

JOIN_TIMEOUT = 600.0
"""Seconds that the ranks have to find each other. Once they have, they may be idle for days."""
MOST_SECONDS = (1 << 31) - 1
JOIN_TIMEOUT_VARIABLE = "LLAMAKIT_JOIN_TIMEOUT"

_ADVICE = "torchrun sets these variables; to run one process, unset {}"
_COUNTS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class RankEnvironment:
    """Which rank this process is.

    Args:
        local_size: how many ranks share this host; None if that is not said.
        host: where all ranks meet; "" for a rank alone.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int | None = None
    host: str = ""
    port: int = 0

    @property
    def address(self) -> str:
        """Where all ranks meet, as a message names it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_environment() -> RankEnvironment:
    """Read the variables that torchrun sets; without them, this process is a rank alone.

    Raises:
        ParallelError: they are incomplete, contradict each other, or are not what they should be.
    """
    rank, size, local_rank, local_size = map(_count, _COUNTS)
    if size is None:
        for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            if _value(name):
                raise _wrong(f"{name} is {_value(name)}, but WORLD_SIZE is not set")
        return RankEnvironment()
    if rank is None and size > 1:
        raise _wrong(f"WORLD_SIZE is {size}, but RANK is not set")
    _check_below("RANK", rank, "WORLD_SIZE", size)
    _check_below("LOCAL_RANK", local_rank, "WORLD_SIZE", size)
    if local_size is not None:
        _check_below("LOCAL_RANK", local_rank, "LOCAL_WORLD_SIZE", local_size)
        _check_below("LOCAL_WORLD_SIZE", local_size - 1, "WORLD_SIZE", size, shown=local_size)
    host, port = _master(size) if size > 1 else ("", 0)
    return RankEnvironment(rank or 0, size, local_rank or 0, local_size, host, port)


def join_timeout(seconds: float | None) -> float:
    """Return how many seconds the ranks have to find each other.

    Args:
        seconds: None takes ``LLAMAKIT_JOIN_TIMEOUT``, and ``JOIN_TIMEOUT`` without it.
    Raises:
        ParallelError: the variable is no number of seconds.
    """
    text = _value(JOIN_TIMEOUT_VARIABLE)
    if seconds is not None or not text:
        return JOIN_TIMEOUT if seconds is None else seconds
    try:
        seconds = number(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MOST_SECONDS:
        raise ParallelError(
            f"{JOIN_TIMEOUT_VARIABLE} is {text!r:.60}: expected seconds, such as {JOIN_TIMEOUT:g}"
        )
    return seconds


def _value(name: str) -> str:
    return os.environ.get(name, "").strip()


def _count(name: str) -> int | None:
    """Read a number of ranks, or the number of a rank; None where it is not set."""
    text, least = _value(name), int(name.endswith("SIZE"))
    if not text:
        return None
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) < least:
        raise _wrong(f"{name} is {text!r:.60}, expected a whole number from {least} on")
    return int(text)


def _check_below(name: str, value: int | None, of: str, size: int, *, shown: int = -1) -> None:
    if value is not None and value >= size:
        most = size if shown >= 0 else size - 1
        raise _wrong(f"{name} is {max(shown, value)}, but {of} is {size}: expected at most {most}")


def _master(size: int) -> tuple[str, int]:
    """Read where the ranks meet."""
    host, port = _value("MASTER_ADDR"), _value("MASTER_PORT")
    for name, value in (("MASTER_ADDR", host), ("MASTER_PORT", port)):
        if not value:
            raise _wrong(f"WORLD_SIZE is {size}, but {name} is not set")
    if not re.fullmatch(r"[\w.:%-]{1,255}", host) or not _is_encodable(host):
        raise _wrong(f"MASTER_ADDR is {host!r:.60}, expected a host's name or IP address")
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
        raise _wrong(f"MASTER_PORT is {port!r:.60}, expected a port from 1 to {(1 << 16) - 1}")
    return host, int(port)


def _is_encodable(host: str) -> bool:
    """Tell whether the resolver takes a name: no label of it is empty, or has over 63 letters."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _wrong(what: str) -> ParallelError:
    is_set = [name for name in _COUNTS if _value(name)]
    return ParallelError(f"{what}. {_ADVICE.format(', '.join(is_set))}")
