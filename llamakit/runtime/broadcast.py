"""Work that runs on rank 0 only and whose results every rank gets, for scripts under torchrun."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from llamakit.runtime.group import Group

T = TypeVar("T")


def broadcast_results(group: Group, work: Callable[[], Generator[T]]) -> Generator[T]:
    """Run a generator on rank 0 and yield its items on every rank that runs the same script."""
    if group.leads:
        yield from work()
    elif group.rank == 0:
        try:
            for item in work():
                group.send("item", item)
                yield item
        except Exception as error:
            group.send("error", error)
            raise
        except GeneratorExit:
            group.send("end")
            raise
        group.send("end")
    else:
        yield from _follow(group)


def _follow(group: Group) -> Generator[Any]:
    """Yield the items of rank 0; a caller that stops early has stopped early on rank 0 too."""
    ended = False
    try:
        while not ended:
            kind, payload = group.follow()
            ended = kind != "item"
            if kind == "error":
                raise payload
            if not ended:
                yield payload
    finally:
        while not ended:
            ended = group.follow()[0] != "item"
