"""What a model needs of the ranks that share it; here one rank is alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class Group:
    """A single rank, and the interface of groups with several."""

    rank = 0
    size = 1
    local_rank = 0

    @property
    def leads(self) -> bool:
        """Whether only this process runs the program; other ranks, if any, follow."""
        return True

    def register(self, executor: object) -> int:  # noqa: ARG002
        """Register a model; return its number, the same on every rank."""
        return 0

    @contextlib.contextmanager
    def call(self, executor: int, method: str, arguments: tuple[Any, ...]) -> Iterator[None]:  # noqa: ARG002
        """Run a method on the other ranks while rank 0 runs this block."""
        yield

    def send(self, kind: str, payload: object = None) -> None:
        """Send a message from rank 0 to every rank that follows."""

    def follow(self) -> tuple[str, Any]:
        """Run rank 0's calls until another message comes; return that message."""
        raise AssertionError("a rank alone follows nobody")

    def agree(self, error: Exception | None) -> None:
        """Raise on every rank if one of them failed; ``error`` itself where it is given."""
        if error is not None:
            raise error

    @property
    def has_hosts(self) -> bool:
        """Whether the ranks may be on several hosts."""
        return False

    def compare(self, value: str, what: str) -> None:
        """Raise ParallelError on every rank if they have other values of something."""

    def abandon(self) -> None:
        """End a group whose ranks are no longer in step."""

    def acquire(self) -> None:
        """Count one more user of the group."""

    def release(self) -> None:
        """Count one user less; the last one closes the group."""
