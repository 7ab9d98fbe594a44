"""Where torchrun runs the same script on every rank: work on rank 0, its results on all."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from llamakit.runtime.parallel import Group

T = TypeVar("T")


def on_every_rank(group: Group, work: Callable[[], Generator[T]]) -> Generator[T]:
    """Do the work on rank 0; where all ranks run the same script, all get its items."""
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
    """Give out the items of rank 0; when the caller stops early, so has rank 0."""
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
