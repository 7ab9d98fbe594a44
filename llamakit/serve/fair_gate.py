"""A gate that lets a few in at a time, and clients in turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from llamakit.runtime.fair_queue import FairQueue


class FairGate:
    """Lets a few in at a time. For one event loop.

    Args:
        places: how many at a time.
        most: how many of one client; None is all.
    """

    def __init__(self, places: int, most: int | None = None) -> None:
        self._free, self._most = places, places if most is None else most
        self._inside: Counter[Hashable] = Counter()
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    @asynccontextmanager
    async def place(self, client: Hashable) -> AsyncIterator[None]:
        """Wait for a place, and leave it at the end."""
        entered = asyncio.get_running_loop().create_future()
        self._waiting.put(client, entered)
        self._admit()
        try:
            await entered
            yield
        finally:
            if not self._waiting.remove(client, entered):
                self._free += 1
                self._inside[client] -= 1
                self._inside += Counter()  # without those that have none
                self._admit()

    def _admit(self) -> None:
        while self._free:
            ready = (it for it in self._waiting.clients if self._inside[it] < self._most)
            client = next(ready, None)
            if client is None:
                return
            self._free -= 1
            self._inside[client] += 1
            entered = self._waiting.pop(client)
            if not entered.done():  # else it was cancelled, and leaves at once
                entered.set_result(None)
