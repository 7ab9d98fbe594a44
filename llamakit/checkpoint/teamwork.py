"""Processes that do one conversion or check together, on a file system that all of them see.

Every one runs the same command. It writes or reads its share of the files; what all have to know
they gather. The one of rank 0 publishes the result and prints. Which processes these are, and how
they talk, is said from outside (``llamakit.runtime.store_team``); here a process is alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

K = TypeVar("K")


class Team:
    """A process alone, and the interface of several."""

    rank = 0
    size = 1

    @property
    def leads(self) -> bool:
        """Whether this process publishes and prints."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all, by rank, when every one has come here.

        Args:
            value: as JSON has them.
        Raises:
            ParallelError: another one has failed, or is gone.
        """
        return [value]

    def check(self) -> None:
        """Raise ParallelError if another one has failed, or is gone."""

    def fail(self, error: BaseException) -> None:
        """Tell the others that this process has failed, and wait for them to stop."""

    def share(self, nbytes: Mapping[K, int]) -> set[K]:
        """Return which files are this one's: neighbors, with about as many bytes as the others'.

        Neighbors take neighboring columns of a parameter, of which less has to be read.

        Args:
            nbytes: of each file; the same on every rank, in the same order.
        """
        total = sum(nbytes.values())
        mine, start = set(), 0
        for name, count in nbytes.items():
            middle = (2 * start + count) * self.size // (2 * total or 1)
            if min(middle, self.size - 1) == self.rank:  # of no bytes, at the end
                mine.add(name)
            start += count
        return mine


_team: ContextVar[Team] = ContextVar("team", default=Team())  # noqa: B039 - it has no state


def current_team() -> Team:
    """Return the team that this process works in; it may be alone."""
    return _team.get()


@contextlib.contextmanager
def working_in(team: Team) -> Iterator[None]:
    """Work in a team in this block."""
    token = _team.set(team)
    try:
        yield
    finally:
        _team.reset(token)
