"""Turns on the event loop: no client keeps it, or Python's lock, from the others.

What arrives is handled in small pieces, one client after the other. While several clients have
requests, each may use a share of the time for that; what exceeds it waits, and its connections are
not read meanwhile. A client that is alone is not slowed.

The share is small because the model's thread needs the interpreter between its kernels: a thread
that is always ready to run Python makes each of them wait.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from llamakit.runtime.fair_queue import FairQueue

T = TypeVar("T")

SHARED = 0.25
"""Of the time, for all clients together that have requests."""
SHARE = 0.05
"""Of the time, for each client at least."""
BURST = 0.02
"""Seconds that a client may use at once: some twenty small requests."""
REQUEST_SECONDS = 0.0002
"""What one request takes beyond what is measured: the event loop's and the system's part."""
DEBT = 0.5
"""Seconds; what a client has used beyond that is forgiven."""
LOOK_SECONDS = 0.05
"""How soon a client that waits notices that it is alone."""
REMEMBERED = 1024
"""Clients; from so many on, those are forgotten that have not been seen for some seconds."""


@dataclass
class _Allowance:
    """What a client may use at once.

    Args:
        seconds: of time on the event loop; below zero, it has to wait.
        counted: when that was so.
    """

    seconds: float
    counted: float


class Charged(Awaitable[T]):
    """Runs a coroutine, and charges a client for the time in which it keeps the event loop."""

    def __init__(self, turns: Turns, client: Hashable, work: Coroutine[Any, Any, T]) -> None:
        self._turns, self._client, self._work = turns, client, work

    def __await__(self) -> Generator[Any, Any, T]:
        step: Callable[[Any], Any] = self._work.send
        value: Any = None
        while True:
            began = self._turns.computed()
            try:
                waits_for = step(value)
            except StopIteration as end:
                return cast(T, end.value)
            finally:
                self._turns.charge(self._client, self._turns.computed() - began)
            try:
                step, value = self._work.send, (yield waits_for)
            except BaseException as error:  # noqa: BLE001 - such as its cancellation: for the work
                step, value = self._work.throw, error


class Turns:
    """Runs callbacks of clients in turn. For one event loop.

    Args:
        clock: in seconds.
        computed: how long the event loop's thread has computed, in seconds: nobody is charged for
            the time in which it has waited for a core or for Python's lock.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
        computed: Callable[[], float] = time.thread_time,
    ) -> None:
        self._loop, self._clock, self.computed = loop, clock, computed
        self._queue: FairQueue[Callable[[], None]] = FairQueue()
        self._allowances: dict[Hashable, _Allowance] = {}
        self._open: Counter[Hashable] = Counter()
        self._scheduled: asyncio.Handle | None = None

    def put(self, client: Hashable, work: Callable[[], None]) -> None:
        """Call something when it is the client's turn."""
        self._queue.put(client, work)
        self._schedule(0.0)

    def began(self, client: Hashable) -> None:
        """Note that a request of a client has begun."""
        self._open[client] += 1
        self.charge(client, REQUEST_SECONDS)

    def ended(self, client: Hashable) -> None:
        """Note that a request of a client has ended."""
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]
        self._schedule(0.0)  # whoever is alone now need not wait

    def charge(self, client: Hashable, seconds: float) -> None:
        """Take time that a client has used from its allowance."""
        allowance = self._allowance(client)
        allowance.seconds = max(-DEBT, allowance.seconds - seconds)

    def delay(self, client: Hashable) -> float:
        """Return how many seconds a client has to wait for its turn."""
        if all(other == client for other in self._open):
            return 0.0
        return max(0.0, -self._allowance(client).seconds / self._share(client))

    async def wait(self, client: Hashable) -> None:
        """Wait until a client may use more time."""
        await asyncio.sleep(0)
        while seconds := self.delay(client):
            await asyncio.sleep(min(seconds, LOOK_SECONDS))

    def _allowance(self, client: Hashable) -> _Allowance:
        now = self._clock()
        if client not in self._allowances and len(self._allowances) >= REMEMBERED:
            self._forget(now)
        allowance = self._allowances.setdefault(client, _Allowance(BURST, now))
        earned = self._share(client) * (now - allowance.counted)
        allowance.seconds = min(BURST, allowance.seconds + earned)
        allowance.counted = now
        return allowance

    def _share(self, client: Hashable) -> float:
        """Return how much of the time a client may use."""
        return max(SHARE, SHARED / (len(self._open) + (client not in self._open)))

    def _forget(self, now: float) -> None:
        """Forget the clients whose allowance is whole again."""
        whole = now - (BURST + DEBT) / SHARE
        self._allowances = {
            client: allowance
            for client, allowance in self._allowances.items()
            if allowance.counted > whole
        }

    def _schedule(self, seconds: float) -> None:
        if self._scheduled is not None:
            self._scheduled.cancel()
        if not self._queue:
            self._scheduled = None
        elif seconds:
            self._scheduled = self._loop.call_later(seconds, self._run)
        else:
            self._scheduled = self._loop.call_soon(self._run)

    def _run(self) -> None:
        """Take one turn; the event loop looks at its sockets before the next one."""
        self._scheduled = None
        delays = [(self.delay(client), client) for client in self._queue.clients]
        ready = next((client for seconds, client in delays if not seconds), None)
        if ready is None:
            self._schedule(min((seconds for seconds, _ in delays), default=0.0))
            return
        work, began = self._queue.pop(ready), self.computed()
        try:
            work()
        finally:
            self.charge(ready, self.computed() - began)
            self._schedule(0.0)
