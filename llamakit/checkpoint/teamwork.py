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
        """Return which files are this one's, so that every one has about as many bytes.

        Args:
            nbytes: of each file; the same on every rank, in the same order.
        """
        loads = [0] * self.size
        mine = set()
        for name in sorted(nbytes, key=lambda it: -nbytes[it]):  # stable: equal ones stay in order
            rank = loads.index(min(loads))
            loads[rank] += nbytes[name]
            if rank == self.rank:
                mine.add(name)
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
