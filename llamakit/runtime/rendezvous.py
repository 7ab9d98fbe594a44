"""How ranks that torchrun started find each other: they meet at torch's store, within a time.

Every wait up to there can be canceled with Ctrl-C, and says after some seconds whom it is for:
torch's own waits would do neither.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from llamakit._distribution import __version__
from llamakit.errors import ParallelError
from llamakit.printable import printable
from llamakit.runtime.rank_environment import JOIN_TIMEOUT_VARIABLE, RankEnvironment
from llamakit.runtime.store_values import read_values

NOTICE_AFTER = 5.0
"""Seconds after which a rank says whom it waits for."""
_POLL_SECONDS = 0.2

_meetings = 0
"""How often this process has met the others: each time under keys of its own."""


@dataclass
class Wait:
    """A wait for other ranks.

    Args:
        rank_name: such as ``rank 0 of 2``.
        timeout: seconds.
        awaited: who has not come, as a message names them.
    """

    rank_name: str
    address: str
    timeout: float
    deadline: float
    awaited: str

    @property
    def left(self) -> float:
        """How many seconds are left."""
        return self.deadline - time.monotonic()

    def check(self, why: str = "") -> None:
        """Raise ParallelError when the time is up."""
        if self.left <= 0:
            raise ParallelError(
                f"{self.rank_name} waited {self.timeout:g} s for {self.awaited} at {self.address}"
                f"{why}: is it started, and can it reach that port? --join-timeout or "
                f"{JOIN_TIMEOUT_VARIABLE} gives it longer"
            )

    def say(self) -> None:
        """Say on stderr whom this rank waits for, and how to cancel that."""
        sys.stderr.write(
            f"llamakit: {self.rank_name} waits for {self.awaited} at {self.address}, for up to "
            f"{self.timeout:g} s (--join-timeout); Ctrl-C cancels\n"
        )
        sys.stderr.flush()


@contextlib.contextmanager
def waiting(environment: RankEnvironment, timeout: float) -> Iterator[Wait]:
    """Wait for the other ranks in this block; after ``NOTICE_AFTER`` seconds it says so."""
    wait = Wait(
        rank_name=f"rank {environment.rank} of {environment.size}",
        address=environment.address,
        timeout=timeout,
        deadline=time.monotonic() + timeout,
        awaited="rank 0" if environment.rank else "the other ranks",
    )
    notice = threading.Timer(NOTICE_AFTER, wait.say)
    notice.daemon = True
    notice.start()
    try:
        yield wait
    finally:
        notice.cancel()


def meet(environment: RankEnvironment, wait: Wait) -> Any:
    """Wait until every rank is at the store; return what they share there.

    Raises:
        ParallelError: a rank has not come in time, or the store cannot be made or reached.
    """
    from torch import distributed

    global _meetings  # noqa: PLW0603
    _meetings += 1
    try:
        store = _store(environment, wait)
        common: Any = distributed.PrefixStore(  # type: ignore[attr-defined]  # torch's stub lacks it
            f"llamakit/{_meetings}", store
        )
        common.set(f"rank {environment.rank}", "here")
        while absent := [
            rank for rank in range(environment.size) if not common.check([f"rank {rank}"])
        ]:
            ranks = ", ".join(map(str, absent[:8])) + (" and others" if len(absent) > 8 else "")
            wait.awaited = f"rank {ranks}"
            wait.check()
            time.sleep(_POLL_SECONDS)
    except RuntimeError as error:
        raise not_connected(wait, error) from error
    wait.awaited = "connections to the other ranks, all of which are"
    return common


def check_versions(environment: RankEnvironment, store: Any) -> list[str]:
    """Return the name of each rank's host, when all of them run the same llamakit.

    Args:
        store: as ``meet`` returns it.
    Raises:
        ParallelError: another rank runs another version.
    """
    own = [socket.gethostname(), __version__]
    store.set(f"program {environment.rank}", json.dumps(own))
    keys = [f"program {rank}" for rank in range(environment.size)]
    store.wait(keys)  # all of them are there: they have met
    programs = read_values(store, keys, _is_program)
    for rank, (host, version) in enumerate(programs):
        if version != __version__:
            raise ParallelError(
                f"rank {rank} on host {printable(host, 64)} runs llamakit {printable(version, 64)} "
                f"and rank {environment.rank} on host {own[0]} runs {__version__}: install one of "
                "them on all hosts"
            )
    return [host for host, _ in programs]


def _is_program(value: Any) -> bool:
    match value:
        case [str(), str()]:
            return True
    return False


def _store(environment: RankEnvironment, wait: Wait) -> Any:
    """Make the store on rank 0; connect to it on the others, and where torchrun's agent has it."""
    from torch import distributed

    of_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    makes = environment.rank == 0 and not of_agent
    if not makes:
        _wait_for_listener(environment, wait)
    return distributed.TCPStore(  # type: ignore[attr-defined]  # as above
        "localhost" if makes else environment.host,  # where it is made, it is near
        environment.port,
        environment.size,
        is_master=makes,
        timeout=timedelta(seconds=max(1.0, wait.left)),
        wait_for_workers=False,
        multi_tenant=True,
    )


def _wait_for_listener(environment: RankEnvironment, wait: Wait) -> None:
    """Wait until something listens where the ranks meet. Python's sockets hear Ctrl-C."""
    while True:
        try:
            place = (environment.host, environment.port)
            socket.create_connection(place, timeout=max(0.1, min(2.0, wait.left))).close()
        except OSError as error:
            wait.check(f" ({error.strerror or error})")
            time.sleep(_POLL_SECONDS)
        else:
            return


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process in this block, in which torch blocks and hears no signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def not_connected(wait: Wait, error: RuntimeError) -> ParallelError:
    """Return the error for what torch says when ranks cannot be connected."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ParallelError(
        f"{wait.rank_name} cannot join the others at {wait.address}: {reason:.300}. Is the port "
        "free there, and can the hosts reach each other? GLOO_SOCKET_IFNAME names the network"
    )
