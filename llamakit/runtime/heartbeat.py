"""Says which rank has hung, or whose host is gone.

Every rank writes that it is alive, from a thread of its own: to torch's store, or to memory that it
shares with rank 0, which launched it. Rank 0 looks at all of them, the others at rank 0.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from llamakit.errors import ParallelError
from llamakit.plugin_manager.option_types import number
from llamakit.printable import printable
from llamakit.runtime.rank_environment import MOST_SECONDS

VARIABLE = "LLAMAKIT_HEARTBEAT_TIMEOUT"
TIMEOUT = 60.0
"""Seconds without a sign of life after which a rank is given up."""
_BEATS = 8
"""In that time."""
_LEFT = b"left"
"""The last sign of life of a rank that has ended."""
_STOP_SECONDS = 1.0
_GONE = (RuntimeError, OSError, ValueError)
"""What the store of torch, or a file that is closed, raises."""


def heartbeat_timeout() -> float:
    """Return after how many seconds without a sign of life a rank is given up.

    Raises:
        ParallelError: the variable is no number of seconds.
    """
    text = os.environ.get(VARIABLE, "").strip()
    try:
        seconds = number(text) if text else TIMEOUT
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MOST_SECONDS:
        raise ParallelError(f"{VARIABLE} is {text!r:.60}: expected seconds, such as {TIMEOUT:g}")
    return seconds


class Signs(Protocol):
    """Where ranks leave signs of life: a few bytes each."""

    def write(self, rank: int, sign: bytes) -> None:
        """Write one's own."""
        ...

    def read(self, rank: int) -> bytes:
        """Return another's; empty where there is none yet."""
        ...


class StoreSigns:
    """Signs of life in torch's store, which all hosts reach."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def write(self, rank: int, sign: bytes) -> None:
        """Write one's own. Raises RuntimeError: the store is gone."""
        self._store.set(f"beat {rank}", sign.decode())

    def read(self, rank: int) -> bytes:
        """Return another's; empty where there is none yet. Raises as ``write``."""
        key = f"beat {rank}"
        return bytes(self._store.get(key)) if self._store.check([key]) else b""


class Heartbeat:
    """Writes that this rank is alive, and notices when another one no longer does.

    Time is counted in beats of this rank's own: where all of them were stopped, as a machine that
    sleeps stops them, nobody is missed.

    Args:
        hosts: the name of each rank's host.
        launched: rank 0 launched the others, on its own host; nobody misses rank 0 then, which may
            be stopped with Ctrl-Z and continue later.
    """

    def __init__(
        self, signs: Signs, rank: int, hosts: Sequence[str], *, launched: bool = False
    ) -> None:
        self.lost: str | None = None
        """Who is missing now, as a sentence."""
        self._signs, self._rank = signs, rank
        self.hosts, self.launched = hosts, launched
        self._timeout = heartbeat_timeout()
        self._watched = range(1, len(hosts)) if rank == 0 else range(0 if launched else 1)
        self._last = dict.fromkeys(self._watched, b"")
        self._missed = dict.fromkeys(self._watched, 0)
        self._stopped = threading.Event()
        self._has_ended = False
        self._news = threading.Event()
        """Somebody is missing, or the thread has ended."""
        self._thread = threading.Thread(target=self._beat, daemon=True, name="llamakit-heartbeat")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wait(self) -> str | None:
        """Return who is missing, when somebody is; None when it is stopped or the store is gone."""
        while (lost := self.lost) is None and not self._has_ended:
            self._news.wait()
            self._news.clear()
        return None if self._stopped.is_set() else lost

    def stop(self) -> None:
        """End; nobody is missed from now on, and nobody misses this rank."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        self.lost = None
        with contextlib.suppress(*_GONE):
            self._signs.write(self._rank, _LEFT)

    def _beat(self) -> None:
        beats = 0
        while not self._stopped.wait(self._timeout / _BEATS):
            beats += 1
            try:
                self._signs.write(self._rank, str(beats).encode())
                self._look()
            except _GONE:  # and rank 0 with it: it may have ended well
                break
            if self.lost is not None:
                self._news.set()
        self._has_ended = True
        self._news.set()

    def _look(self) -> None:
        for rank in self._watched:
            now = self._signs.read(rank)
            is_there = now == _LEFT or now != self._last[rank]
            self._missed[rank] = 0 if is_there else self._missed[rank] + 1
            self._last[rank] = now
        missing = [rank for rank in self._watched if self._missed[rank] >= _BEATS]
        self.lost = self._sentence(missing[0]) if missing else None

    def _sentence(self, rank: int) -> str:
        host = printable(self.hosts[rank], 64)
        why = "is stopped" if self.launched else "its host is gone or cut off"
        return (
            f"rank {rank} of {len(self.hosts)} on host {host} has given no sign of life for "
            f"{self._timeout:g} s ({VARIABLE}): it hangs, or {why}"
        )
