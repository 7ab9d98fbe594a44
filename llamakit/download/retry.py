"""Retries of requests: how many, with exponential backoff."""

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
"""In seconds, unless the server asks for more."""
MAX_ASKED_WAIT = 3600.0
"""In seconds; a server that asks for more ends the download."""

HOW_TO_RESUME = "What is downloaded is kept: run the same command again to resume."

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How often a failed request is sent again, and how long to wait.

    Args:
        retries: failures in a row, counted from the last new byte.
        wait: after the first failure, in seconds; doubled each time.
    """

    retries: int = 10
    wait: float = 1.0

    def seconds(self, error: TransientError, failures: int) -> float:
        """Return how long to wait after a number of failures; never less than the server asks.

        Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
        """
        wait = min(self.wait * 2.0 ** (failures - 1), MAX_WAIT)
        jittered = wait * random.uniform(0.5, 1.0)  # not all at once  # noqa: S311  # nosec B311
        return max(jittered, error.after or 0.0)


@dataclass(frozen=True)
class FailedAttempt:
    """Why an attempt failed, and how long to wait before the next one, in seconds."""

    reason: str
    seconds: float


def retry(
    attempt: Callable[[], T], retry_policy: RetryPolicy, reached: Callable[[], int] = lambda: 0
) -> Generator[FailedAttempt, None, T]:
    """Call ``attempt`` until it does not raise ``TransientError``; return what it returns.

    Args:
        reached: returns the progress of the attempts; any progress resets the count of failures.
    Yields:
        Each failure; the next attempt is made when the generator is resumed.

    Raises:
        DownloadError: too many failures in a row.
    """
    failures, best = 0, reached()
    while True:
        try:
            return attempt()
        except TransientError as error:
            now = reached()
            failures, best = (1, now) if now > best else (failures + 1, best)
            if failures > min(retry_policy.retries, error.max_attempts):
                times = f" ({failures} times in a row)" if failures > 1 else ""
                raise DownloadError(f"{error.reason}{times}. {HOW_TO_RESUME}") from None
            if (error.after or 0) > MAX_ASKED_WAIT:
                asked = f"and asks to retry after {error.after:g} s"
                raise DownloadError(f"{error.reason}, {asked}. {HOW_TO_RESUME}") from None
            yield FailedAttempt(error.reason, retry_policy.seconds(error, failures))


def retried(
    path: str, attempt: Callable[[], T], retry_policy: RetryPolicy
) -> Generator[Event, None, T]:
    """Call ``attempt`` as ``retry`` does; wait between the attempts, and yield ``Retrying`` events.

    Args:
        path: of the file that is requested.
    Raises:
        DownloadError: too many failures in a row.
    """
    steps = retry(attempt, retry_policy)
    while True:
        try:
            failure = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        yield Retrying(path, failure.reason, failure.seconds)
        time.sleep(failure.seconds)
