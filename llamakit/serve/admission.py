"""The engine as an event loop sees it: who may come in, and how many there are."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial

from llamakit.errors import ParallelError
from llamakit.llama.llama import Llama
from llamakit.runtime.requests import Event
from llamakit.serve.answer_stream import Answers
from llamakit.serve.api_errors import ApiError
from llamakit.serve.metrics import Metrics
from llamakit.serve.request_parser import Asked
from llamakit.serve.server_settings import Limits

FOR_NEWCOMERS = 4
"""One part in so many of the queue is kept for clients that have nothing in it."""
LONGEST_RETRY = 60
"""Seconds after which a client is told to come again, at most."""


class Admission:
    """Takes what is asked while there is room, and gives out answers.

    For one event loop; the model works in a thread of its own.
    """

    def __init__(self, llama: Llama, limits: Limits, metrics: Metrics) -> None:
        self.slots = llama.max_batch_size
        self._limits = limits
        self._metrics = metrics
        self._tokenizer = llama.tokenizer
        self._engine = llama.engine()
        self._inside: Counter[Hashable] = Counter()  # choices that have not ended, by client
        self._answers: set[Answers] = set()
        self._seconds = 1.0  # what an answer takes, about
        self.closing = False
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails when a rank has gone: nothing can be answered any more."""

    @property
    def inside(self) -> int:
        """How many choices wait or are written."""
        return sum(self._inside.values())

    @property
    def waiting(self) -> int:
        """How many choices have no slot."""
        return max(0, self.inside - self.slots)

    def ask(self, asked: Asked, client: Hashable, seconds: float | None = None) -> Answers:
        """Have the engine answer. Whoever asks calls ``done`` at last.

        Args:
            seconds: how long the answers may take; None is the server's limit.
        Raises:
            ApiError: 429, the queue is full; 503, the server is about to end.
        """
        if self.closing:
            raise ApiError(503, "the server is shutting down", code="shutting_down")
        self._check_room(len(asked.requests), client)
        loop = asyncio.get_running_loop()

        def ended() -> None:
            self._leave(client, 1)

        answers = Answers(asked, self._tokenizer, seconds or self._limits.seconds, ended)
        self._inside[client] += len(asked.requests)
        self._answers.add(answers)
        for index, request in enumerate(asked.requests):
            listener = _Listener(loop, partial(self._hear, answers, index))
            answers.tickets.append(self._engine.submit(request, client=client, listen=listener))
        self._count()
        return answers

    def done(self, answers: Answers) -> None:
        """Let go of answers, finished or not; what is not frees its slot at the next step."""
        self._answers.discard(answers)
        answers.cancel()
        if answers.began is not None:
            taken = time.monotonic() - answers.began
            self._seconds = 0.8 * self._seconds + 0.2 * taken

    def cancel_all(self) -> None:
        """End everything that is under way, as the server's time is up."""
        for answers in list(self._answers):
            answers.fail(ApiError(503, "the server is shutting down", code="shutting_down"))

    def close(self) -> None:
        """End the engine's thread and free its cache."""
        self._engine.close()

    def _hear(self, answers: Answers, index: int, event: Event | BaseException) -> None:
        answers.put(index, event)
        if isinstance(event, ParallelError) and not self.broken.done():
            self.closing = True
            self.broken.set_exception(event)

    def _check_room(self, count: int, client: Hashable) -> None:
        room = self.slots + self._limits.waiting - self.inside
        if self._inside[client]:
            room -= self._limits.waiting // FOR_NEWCOMERS
        if count > room and self.inside:
            self._metrics.refused.inc()
            seconds = math.ceil(self._seconds * (1 + self.waiting / self.slots))
            raise ApiError(
                429,
                f"the queue is full: {self.waiting} answers wait for {self.slots} slots",
                code="queue_full",
                headers={"Retry-After": str(max(1, min(LONGEST_RETRY, seconds)))},
            )

    def _leave(self, client: Hashable, count: int) -> None:
        self._inside[client] -= count
        if not self._inside[client]:
            del self._inside[client]
        self._count()

    def _count(self) -> None:
        self._metrics.running.set(min(self.inside, self.slots))
        self._metrics.waiting.set(self.waiting)


class _Listener:
    """Carries the events of one choice from the engine's thread to the loop's."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, hear: Callable[[Event | BaseException], None]
    ) -> None:
        self._loop, self._hear = loop, hear

    def __call__(self, event: Event | BaseException) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._hear, event)
