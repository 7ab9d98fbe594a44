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
        """Add a connection; if there are too many, close those that are missed least.

        These are the oldest ones that wait, of the client with the most connections; no client
        loses one to a client that has more.

        Returns:
            False: there are twice as many as there may be, and none waits.
        """
        self._open[connection] = None
        self._make_room(connection)
        return len(self._open) <= 2 * self.most

    def _make_room(self, connection: Connection) -> None:
        """Close connections that wait, while there are too many, in favor of another one."""
        while len(self._open) > self.most:
            least = self._least_missed(connection)
            if least is None:
                return
            self.discard(least)
            least.give_up()

    def _least_missed(self, newest: Connection) -> Connection | None:
        counts = Counter(it.client_id for it in self._open)
        for client, count in counts.most_common():
            if count < counts[newest.client_id]:
                return None
            for other in self._open:
                if other.client_id == client and other is not newest and other.is_waiting:
                    return other
        return None

    def discard(self, connection: Connection) -> None:
        """Remove a connection that is closed."""
        self._open.pop(connection, None)

    def is_full(self, connection: Connection | None) -> bool:
        """Return whether a request on a connection is one too many.

        When there are too many connections, each client's oldest one is served, then each one's
        second, and so on. A client that is at work on most of the connections is refused before.
        """
        allowed = self.most - self.most // RESERVED
        if len(self._open) <= allowed:
            return False
        if connection not in self._open:
            return len(self._open) > self.most
        self._make_room(connection)
        own = [it for it in self._open if it.client_id == connection.client_id]
        if len(self._open) > self.most:
            turn = own.index(connection) + 1
            counts = Counter(it.client_id for it in self._open).values()
            if sum(min(count, turn) for count in counts) > self.most:
                return True
        return sum(not it.is_waiting for it in own) > allowed
