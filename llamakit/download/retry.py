"""Trying again: how often, and how long to wait in between."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

from llamakit.download.events import Event, Retrying
from llamakit.download.responses import TransientError
from llamakit.errors import DownloadError

MAX_WAIT = 60.0
"""Seconds, where the server does not ask for more."""
MAX_ASKED_WAIT = 3600.0
"""Seconds; whoever has to wait longer than this had better come again later."""

GO_ON = "What is downloaded is kept: run the same command again and it goes on."

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How much trouble is borne.

    Args:
        retries: how many failures in a row, counted from the last byte gained.
        wait: after the first of them, in seconds; doubled each time.
    """

    retries: int = 10
    wait: float = 1.0

    def seconds(self, error: TransientError, failures: int) -> float:
        """Return how long to wait after a number of failures; never less than the server asks.

        Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
        """
        wait = min(self.wait * 2.0 ** (failures - 1), MAX_WAIT)
        jittered = wait * random.uniform(0.5, 1.0)  # noqa: S311 - so that not all come at once
        return max(jittered, error.after or 0.0)


@dataclass(frozen=True)
class Trouble:
    """What went wrong, and how long to wait before the next attempt, in seconds."""

    reason: str
    seconds: float


def persist(
    attempt: Callable[[], T], patience: Patience, reached: Callable[[], int] = lambda: 0
) -> Generator[Trouble, None, T]:
    """Call ``attempt`` until it does not raise ``TransientError``; return what it returns.

    Args:
        reached: how far the attempts have come; going further starts the count anew.
    Yields:
        What went wrong; the next attempt is made when the generator is asked again.

    Raises:
        DownloadError: patience is over.
    """
    failures, best = 0, reached()
    while True:
        try:
            return attempt()
        except TransientError as error:
            now = reached()
            failures, best = (1, now) if now > best else (failures + 1, best)
            if failures > min(patience.retries, error.patience):
                times = f" ({failures} times in a row)" if failures > 1 else ""
                raise DownloadError(f"{error.reason}{times}. {GO_ON}") from None
            if (error.after or 0) > MAX_ASKED_WAIT:
                asked = f"and asks to come again in {error.after:g} s"
                raise DownloadError(f"{error.reason}, {asked}. {GO_ON}") from None
            yield Trouble(error.reason, patience.seconds(error, failures))


def patiently(path: str, attempt: Callable[[], T], patience: Patience) -> Generator[Event, None, T]:
    """Try until it works or patience is over, saying so and waiting in between.

    Args:
        path: of the file that the attempts are for.
    Raises:
        DownloadError: patience is over.
    """
    steps = persist(attempt, patience)
    while True:
        try:
            trouble = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        yield Retrying(path, trouble.reason, trouble.seconds)
        time.sleep(trouble.seconds)
