"""The open connections, by client: who has to give one up when there are too many."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

RESERVED = 4
"""One part in so many of the connections is kept from a client that works on all others."""


class Connection(Protocol):
    """What the table asks of a connection."""

    client_id: str
    """Whose it is."""

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its client: to begin a request, to end it, or to read."""

    @property
    def is_closing(self) -> bool:
        """Whether it has been closed."""

    def give_up(self) -> None:
        """Close it in favor of another one."""


class Connections:
    """The open connections of a server. Those that wait for their client make room for others.

    Args:
        most: how many there may be.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._open: dict[Connection, None] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._live())

    def add(self, connection: Connection) -> bool:
        """Add a connection; if there are too many, close the one that is missed least.

        That is the oldest one that waits, of the client with the most connections.

        Returns:
            False: there are twice as many as there may be, and none waits.
        """
        self._open[connection] = None
        live = self._live()
        if len(live) > self.most:
            counts = Counter(it.client_id for it in live)
            waiting = [it for it in live if it is not connection and it.is_waiting]
            if waiting:
                max(waiting, key=lambda it: counts[it.client_id]).give_up()
                return True
        return len(live) <= 2 * self.most

    def discard(self, connection: Connection) -> None:
        """Remove a connection that is closed."""
        self._open.pop(connection, None)

    def is_full(self, connection: Connection | None) -> bool:
        """Return whether a request on a connection is one too many.

        A client that is at work on most of the connections is refused before the others are.
        """
        live = self._live()
        if connection is None or len(live) > self.most:
            return len(live) > self.most
        own = sum(it.client_id == connection.client_id and not it.is_waiting for it in live)
        return own > self.most - self.most // RESERVED

    def _live(self) -> list[Connection]:
        return [it for it in self._open if not it.is_closing]
