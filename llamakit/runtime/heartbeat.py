"""Says which rank of a run over several hosts has hung, or whose host is gone.

Every rank writes to the store that it is alive, from a thread of its own. Rank 0 looks at all of
them, the others at rank 0.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from typing import Any

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


class Heartbeat:
    """Writes that this rank is alive, and notices when another one no longer does.

    Time is counted in beats of this rank's own: where all of them were stopped, as a machine that
    sleeps stops them, nobody is missed.

    Args:
        store: what all ranks share.
        hosts: the name of each rank's host.
    """

    def __init__(self, store: Any, rank: int, hosts: Sequence[str]) -> None:
        self.lost: str | None = None
        """Who is missing, as a sentence."""
        self._store, self._rank, self.hosts = store, rank, hosts
        self._timeout = heartbeat_timeout()
        self._watched = range(1, len(hosts)) if rank == 0 else range(1)
        self._last = dict.fromkeys(self._watched, b"")
        self._missed = dict.fromkeys(self._watched, 0)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="llamakit-heartbeat")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def is_stopped(self) -> bool:
        """Whether nobody is missed any more."""
        return self._stopped.is_set()

    def wait(self) -> str | None:
        """Return who is missing, when somebody is; None when it is stopped or the store is gone."""
        self._thread.join()
        return None if self.is_stopped else self.lost

    def stop(self) -> None:
        """End; nobody is missed from now on, and nobody misses this rank."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        with contextlib.suppress(RuntimeError):  # the store has gone before
            self._store.set(f"beat {self._rank}", _LEFT.decode())

    def _beat(self) -> None:
        beats = 0
        while self.lost is None and not self._stopped.wait(self._timeout / _BEATS):
            beats += 1
            try:
                self._store.set(f"beat {self._rank}", str(beats))
                self._look()
            except RuntimeError:  # the store is gone, and rank 0 with it: it may have ended well
                return

    def _look(self) -> None:
        for rank in self._watched:
            key = f"beat {rank}"
            now = bytes(self._store.get(key)) if self._store.check([key]) else b""
            is_there = now == _LEFT or now != self._last[rank]
            self._missed[rank] = 0 if is_there else self._missed[rank] + 1
            self._last[rank] = now
            if self._missed[rank] >= _BEATS:
                reason = f"has given no sign of life for {self._timeout:g} s ({VARIABLE})"
                self.lost = self._sentence(rank, reason)
                return

    def _sentence(self, rank: int, reason: str) -> str:
        host = printable(self.hosts[rank], 64)
        return (
            f"rank {rank} of {len(self.hosts)} on host {host} {reason}: it hangs, or its host is "
            "gone or cut off"
        )
