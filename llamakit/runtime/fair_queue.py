"""A queue that serves whoever asks in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First come, first served for each client, and the clients in turn.

    Who has asked for a hundred things holds up somebody who asks for one by one thing.
    """

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[T]] = {}  # the next client first; no line is empty

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[T]:
        """Yield all that wait."""
        for line in list(self._lines.values()):
            yield from list(line)

    def put(self, client: Hashable, item: T) -> None:
        """Have an item of a client's wait."""
        self._lines.setdefault(client, deque()).append(item)

    def pop(self) -> T:
        """Take the first item of the client whose turn it is, who then is the last in turn.

        Raises:
            IndexError: nothing waits.
        """
        if not self._lines:
            raise IndexError("nothing waits")
        client = next(iter(self._lines))
        line = self._lines.pop(client)
        item = line.popleft()
        if line:
            self._lines[client] = line
        return item

    def remove(self, client: Hashable, item: T) -> bool:
        """Take an item out, wherever it stands; say whether it was there."""
        line = self._lines.get(client, deque())
        if item not in line:
            return False
        line.remove(item)
        if not line:
            del self._lines[client]
        return True
