"""Says which rank of a run over several hosts has hung, or whose host is gone.

Every rank writes to the store that it is alive, from a thread of its own. Rank 0 looks at all of
them, the others at rank 0.
"""

from __future__ import annotations

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
        self._store, self._rank, self._hosts = store, rank, hosts
        self._timeout = heartbeat_timeout()
        self._watched = range(1, len(hosts)) if rank == 0 else range(1)
        self._last = dict.fromkeys(self._watched, b"")
        self._missed = dict.fromkeys(self._watched, 0)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="llamakit-heartbeat")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; nobody is missed from now on."""
        self._stopped.set()

    def _beat(self) -> None:
        beats = 0
        while self.lost is None and not self._stopped.wait(self._timeout / _BEATS):
            beats += 1
            try:
                self._store.set(f"beat {self._rank}", str(beats))
                self._look()
            except RuntimeError:  # torch's: the store is gone, and rank 0 or torchrun with it
                self.lost = self._sentence(0, "cannot be reached any more")

    def _look(self) -> None:
        for rank in self._watched:
            key = f"beat {rank}"
            now = bytes(self._store.get(key)) if self._store.check([key]) else b""
            self._missed[rank] = 0 if now != self._last[rank] else self._missed[rank] + 1
            self._last[rank] = now
            if self._missed[rank] >= _BEATS:
                reason = f"has given no sign of life for {self._timeout:g} s ({VARIABLE})"
                self.lost = self._sentence(rank, reason)
                return

    def _sentence(self, rank: int, reason: str) -> str:
        host = printable(self._hosts[rank], 64)
        return (
            f"rank {rank} of {len(self._hosts)} on host {host} {reason}: it hangs, or its host is "
            "gone or cut off"
        )
