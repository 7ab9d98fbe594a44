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
        return len(self._open)

    def add(self, connection: Connection) -> bool:
        """Add a connection; if there are too many, close the one that is missed least.

        That is the oldest one that waits, of the client with the most connections.

        Returns:
            False: there are twice as many as there may be, and none waits.
        """
        self._open[connection] = None
        if len(self._open) > self.most:
            for client, _ in Counter(it.client_id for it in self._open).most_common():
                for other in self._open:
                    if other.client_id == client and other is not connection and other.is_waiting:
                        self.discard(other)
                        other.give_up()
                        return True
        return len(self._open) <= 2 * self.most

    def discard(self, connection: Connection) -> None:
        """Remove a connection that is closed."""
        self._open.pop(connection, None)

    def is_full(self, connection: Connection | None) -> bool:
        """Return whether a request on a connection is one too many.

        A client that is at work on most of the connections is refused before the others are.
        """
        allowed = self.most - self.most // RESERVED
        if connection is None or not allowed < len(self._open) <= self.most:
            return len(self._open) > self.most
        client = connection.client_id
        own = sum(it.client_id == client and not it.is_waiting for it in self._open)
        return own > allowed
