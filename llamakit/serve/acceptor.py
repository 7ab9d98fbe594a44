"""Accepts connections, a few at a time, and opens them when it is their client's turn.

asyncio would accept all that wait at once, up to the backlog, and handle them before anything else:
a client that connects again and again keeps the event loop for most of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial

from llamakit.runtime.fair_queue import FairQueue
from llamakit.serve.client_identity import client_of_address
from llamakit.serve.turns import Turns

BACKLOG = 2048
"""Connections that the system keeps before they are accepted."""
WAITING = 256
"""Accepted connections that may wait for their turn; beyond that, the newest one of the client with
the most is closed."""
AT_ONCE = 16
"""Connections that are accepted before others have the event loop."""
PAUSE_SECONDS = 0.002
"""The time that others have it then, at least."""
RETRY_SECONDS = 0.1
"""After an error of the system, such as too many open files."""
ACCEPT_SECONDS, OPEN_SECONDS = 0.00003, 0.0003
"""What a connection takes beyond its turn: to be accepted, and to be set up and closed."""


class Acceptor:
    """Accepts connections of a listening socket. For one event loop; a server of uvicorn's.

    Args:
        listener: a bound socket.
        make_protocol: returns what handles a connection.
        most: how many accepted connections may wait for their turn.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        turns: Turns,
        most: int = WAITING,
    ) -> None:
        self._listener, self._make_protocol, self._turns = listener, make_protocol, turns
        self._most = most
        self._waiting: FairQueue[socket.socket] = FairQueue()
        self._opening: set[asyncio.Task[object]] = set()
        self._loop = asyncio.get_running_loop()
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._accepting = self._loop.create_task(self._accept())

    def close(self) -> None:
        """Accept no more connections; close those that wait."""
        self._accepting.cancel()
        for connection in self._waiting:
            connection.close()
        self._waiting = FairQueue()

    async def wait_closed(self) -> None:
        """Wait until nothing is accepted any more."""
        await asyncio.wait({self._accepting, *self._opening})

    async def _accept(self) -> None:
        while True:
            try:
                for _ in range(AT_ONCE):
                    connection, address = await self._loop.sock_accept(self._listener)
                    self.add(connection, client_of_address(address[0]))
            except ConnectionAbortedError:
                continue
            except OSError:
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(PAUSE_SECONDS)

    def add(self, connection: socket.socket, client: str) -> None:
        """Have an accepted connection of a client wait for its turn."""
        self._turns.charge(client, ACCEPT_SECONDS)
        if client not in self._waiting.clients:
            self._turns.put(client, partial(self._open, client))
        self._waiting.put(client, connection)
        if len(self._waiting) > self._most:
            self._waiting.pop_newest().close()

    def _open(self, client: str) -> None:
        """Open the connection of a client that has waited for longest, if there is one left."""
        if client not in self._waiting.clients:
            return
        connection = self._waiting.pop(client)
        opening = self._loop.create_task(
            self._loop.connect_accepted_socket(self._make_protocol, connection)
        )
        self._opening.add(opening)
        opening.add_done_callback(self._opened)
        self._turns.charge(client, OPEN_SECONDS)
        if client in self._waiting.clients:
            self._turns.put(client, partial(self._open, client))

    def _opened(self, opening: asyncio.Task[object]) -> None:
        self._opening.discard(opening)
        with contextlib.suppress(OSError, asyncio.CancelledError):  # its client has gone
            opening.result()
