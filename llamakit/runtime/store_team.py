"""Ranks that torchrun started as a team that converts or checks: they talk through torch's store.

Values are JSON, so nothing that arrives is executed.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from typing import Any

from llamakit.checkpoint.teamwork import Team
from llamakit.errors import INTERRUPTED_STATUS, ParallelError, for_commands
from llamakit.printable import printable
from llamakit.runtime.heartbeat import Heartbeat, StoreSigns
from llamakit.runtime.interrupt import import_torch
from llamakit.runtime.rank_environment import RankEnvironment
from llamakit.runtime.rendezvous import check_versions, meet, waiting
from llamakit.runtime.store_values import read_values

_POLL_SECONDS = 0.02
_LEAVE_SECONDS = 10.0
"""How long rank 0 waits for the others to stop writing."""


def join_team(environment: RankEnvironment, timeout: float) -> StoreTeam:
    """Wait for the other ranks.

    Args:
        timeout: seconds.
    Raises:
        ParallelError: one has not come in time, or runs another llamakit.
    """
    import_torch()
    with waiting(environment, timeout) as wait:
        store = meet(environment, wait)
        hosts = check_versions(environment, store)
    return StoreTeam(environment.rank, store, hosts)


class StoreTeam(Team):
    """Several ranks, each with a connection to the store.

    Args:
        hosts: the name of each rank's host.
    """

    def __init__(self, rank: int, store: Any, hosts: Sequence[str]) -> None:
        self.rank, self.size = rank, len(hosts)
        self._store, self._hosts = store, hosts
        self._turn = 0
        self._has_failed = self._has_left = False
        self._heartbeat = Heartbeat(StoreSigns(store), rank, hosts)
        self._heartbeat.start()

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all, by rank, when every one has come here."""
        self._turn += 1
        keys = [f"turn {self._turn} {rank}" for rank in range(self.size)]
        try:
            self._store.set(keys[self.rank], json.dumps(value))
            while not self._store.check(keys):
                self.check()
                time.sleep(_POLL_SECONDS)
            return read_values(self._store, keys, lambda _: True)
        except RuntimeError as error:
            raise self._unreachable() from error

    def check(self) -> None:
        """Raise ParallelError if another one has failed, or is gone."""
        try:
            has_failed = self._store.check(["failed"])
            failures = read_values(self._store, ["failed"] if has_failed else [], self._is_failure)
        except RuntimeError as error:
            raise self._unreachable() from error
        for rank, message, status in failures:
            self._has_failed = True
            host = printable(self._hosts[rank], 64)
            stopped = ParallelError(f"rank {rank} on host {host}: {printable(message, 2000)}")
            stopped.exit_status = status
            raise stopped
        if self._heartbeat.lost is not None:
            raise ParallelError(self._heartbeat.lost)

    def fail(self, error: BaseException) -> None:
        """Tell the others that this one has failed; rank 0 waits for them to stop writing."""
        try:
            if not self._has_failed and not self._store.check(["failed"]):
                message = [self.rank, for_commands(error), _status_of(error)]
                self._store.set("failed", json.dumps(message))
            self._has_failed = True
        except RuntimeError:  # the store is gone, and the others notice that, too
            pass
        self.close()

    def close(self) -> None:
        """Leave; rank 0, which may have the store, does when the others have left."""
        if self._has_left:
            return
        self._has_left = True
        others = [f"left {rank}" for rank in range(1, self.size)]
        deadline = time.monotonic() + _LEAVE_SECONDS
        with contextlib.suppress(RuntimeError):
            self._store.set(f"left {self.rank}", "")
            while self.leads and self._heartbeat.lost is None and not self._store.check(others):
                if time.monotonic() > deadline:
                    break
                time.sleep(_POLL_SECONDS)
        self._heartbeat.stop()

    def _is_failure(self, value: Any) -> bool:
        match value:
            case [int(rank), str(), int(status)]:
                return 0 <= rank < self.size and 0 <= status < 256
        return False

    def _unreachable(self) -> ParallelError:
        self._has_failed = True
        return ParallelError(
            f"rank {self.rank} of {self.size} lost the store of torchrun, or of rank 0 on host "
            f"{printable(self._hosts[0], 64)}: it has ended, or cannot be reached any more"
        )


def _status_of(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED_STATUS
    status = getattr(error, "exit_status", getattr(error, "exit_code", 1))
    return status if isinstance(status, int) else 1
