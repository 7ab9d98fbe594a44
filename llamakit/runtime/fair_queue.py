"""A queue that serves its clients round-robin."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First in, first out for each client, and round-robin between clients.

    A client with a hundred items delays a client with one item by one item.
    """

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[T]] = {}  # the next client first; no line is empty

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[T]:
        """Yield all waiting items."""
        for line in list(self._lines.values()):
            yield from list(line)

    def put(self, client: Hashable, item: T) -> None:
        """Append an item of a client."""
        self._lines.setdefault(client, deque()).append(item)

    def put_back(self, client: Hashable, item: T) -> None:
        """Put an item before the other ones of its client; the next turn is not its client's."""
        self._lines.setdefault(client, deque()).appendleft(item)

    @property
    def clients(self) -> list[Hashable]:
        """The clients that wait, the next one first."""
        return list(self._lines)

    def count(self, client: Hashable) -> int:
        """Return how many items of a client wait."""
        return len(self._lines.get(client, ()))

    def pop(self, client: Hashable | None = None) -> T:
        """Remove and return the first item of a client, whose next turn is the last.

        Args:
            client: one of ``clients``; None is the next one.
        Raises:
            IndexError: nothing waits.
        """
        if not self._lines:
            raise IndexError("nothing waits")
        client = next(iter(self._lines)) if client is None else client
        line = self._lines.pop(client)
        item = line.popleft()
        if line:
            self._lines[client] = line
        return item

    def pop_newest(self) -> T:
        """Remove and return the last item of the client with the most.

        Raises:
            IndexError: nothing waits.
        """
        if not self._lines:
            raise IndexError("nothing waits")
        client = max(self._lines, key=lambda it: len(self._lines[it]))
        item = self._lines[client].pop()
        if not self._lines[client]:
            del self._lines[client]
        return item

    def remove(self, client: Hashable, item: T) -> bool:
        """Remove an item from anywhere in the queue; return whether it was there."""
        line = self._lines.get(client, deque())
        if item not in line:
            return False
        line.remove(item)
        if not line:
            del self._lines[client]
        return True
