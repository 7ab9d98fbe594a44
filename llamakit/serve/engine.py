"""The engine as an event loop sees it: who may come in, and answers as they are written."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from dataclasses import replace

from llamakit.llama import Llama
from llamakit.protocols import Tokenizer
from llamakit.runtime.requests import Event
from llamakit.runtime.service import Ticket
from llamakit.runtime.text_stream import TextStream
from llamakit.serve.errors import ApiError, as_api_error
from llamakit.serve.metrics import Metrics
from llamakit.serve.reading import Asked
from llamakit.serve.settings import Limits
from llamakit.streaming import Chunk, to_chunk

FOR_NEWCOMERS = 4
"""One part in so many of the queue is kept for clients that have nothing in it."""
LONGEST_RETRY = 60


class Engine:
    """Takes what is asked while there is room, and gives out answers.

    For one event loop; the model works in a thread of its own.
    """

    def __init__(self, llama: Llama, limits: Limits, metrics: Metrics) -> None:
        self.slots = llama.max_batch_size
        self._limits = limits
        self._metrics = metrics
        self._tokenizer = llama.tokenizer
        self._service = llama.service()
        self._inside: Counter[Hashable] = Counter()  # choices, by client
        self._answers: set[Answers] = set()
        self._seconds = 1.0  # what a choice takes, about
        self.closing = False

    @property
    def inside(self) -> int:
        """How many choices wait or are written."""
        return sum(self._inside.values())

    @property
    def waiting(self) -> int:
        """How many choices have no slot."""
        return max(0, self.inside - self.slots)

    def ask(self, asked: Asked, client: Hashable) -> Answers:
        """Have the engine answer; to be closed when done.

        Raises:
            ApiError: 429, the queue is full; 503, the server is about to end.
        """
        if self.closing:
            raise ApiError(503, "the server is shutting down", headers={"Retry-After": "5"})
        count = len(asked.requests)
        room = self.slots + self._limits.waiting - self.inside
        if self._inside[client]:
            room -= self._limits.waiting // FOR_NEWCOMERS
        if count > room and self.inside:
            self._metrics.refused.inc()
            raise ApiError(
                429,
                f"the queue is full: {self.waiting} answers wait for {self.slots} slots",
                code="queue_full",
                headers={"Retry-After": str(self._retry_after())},
            )
        answers = Answers(asked, client, self._tokenizer, self._limits.seconds)
        self._inside[client] += count
        self._answers.add(answers)
        for index, request in enumerate(asked.requests):
            listen = _Listener(asyncio.get_running_loop(), answers, index)
            answers.tickets.append(self._service.submit(request, client=client, listen=listen))
        self._count()
        return answers

    def done(self, answers: Answers) -> None:
        """Let go of answers, finished or not; what is not frees its slot at the next step."""
        if answers not in self._answers:
            return
        self._answers.remove(answers)
        answers.cancel()
        self._inside[answers.client] -= len(answers.tickets)
        self._inside += Counter()  # forget clients that have none
        if answers.began is not None:
            taken = time.monotonic() - answers.began
            self._seconds = 0.8 * self._seconds + 0.2 * taken
        self._count()

    def cancel_all(self) -> None:
        """End everything that is under way, as the server's time is up."""
        for answers in list(self._answers):
            answers.fail(ApiError(503, "the server is shutting down", code="shutting_down"))

    def close(self) -> None:
        """End the engine's thread and free its cache."""
        self._service.close()

    def _retry_after(self) -> int:
        seconds = self._seconds * self.waiting / self.slots
        return max(1, min(LONGEST_RETRY, math.ceil(seconds)))

    def _count(self) -> None:
        self._metrics.running.set(min(self.inside, self.slots))
        self._metrics.waiting.set(self.waiting)


class _Listener:
    """Carries the events of one choice from the engine's thread to the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answers: Answers, index: int) -> None:
        self._loop, self._answers, self._index = loop, answers, index

    def __call__(self, event: Event | BaseException) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._answers.put, self._index, event)


class Answers:
    """The answers to one HTTP request, as chunks whose ``index`` is the choice's.

    Args:
        seconds: how long they may take.
    """

    def __init__(
        self, asked: Asked, client: Hashable, tokenizer: Tokenizer, seconds: float
    ) -> None:
        self.asked = asked
        self.client = client
        self.tickets: list[Ticket] = []
        self.arrived = time.monotonic()
        self.began: float | None = None  # when the first id was there
        self.new_tokens = 0
        self.finishes: list[str] = []
        self._texts = [TextStream(tokenizer, asked.stop) for _ in asked.requests]
        self._events: asyncio.Queue[tuple[int, Event | BaseException]] = asyncio.Queue()
        self._running = set(range(len(asked.requests)))
        self._timer = asyncio.get_running_loop().call_later(seconds, self._too_late, seconds)

    def put(self, index: int, event: Event | BaseException) -> None:
        """Take an event of a choice, or what went wrong."""
        self._events.put_nowait((index, event))

    def fail(self, error: ApiError) -> None:
        """End all choices with an error."""
        self.put(-1, error)

    def cancel(self) -> None:
        """End the choices that still run."""
        self._timer.cancel()
        for index in self._running:
            self.tickets[index].cancel()
        self._running.clear()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield what is added to each choice, until all have ended.

        Raises:
            ApiError: a choice has failed; the others are ended.
        """
        heads = self._heads()
        while self._running:
            index, event = await self._events.get()
            if isinstance(event, BaseException):
                raise as_api_error(event) if isinstance(event, Exception) else event
            if event.error is not None:
                raise as_api_error(event.error)
            if index not in self._running:
                continue  # it was at work when its stop text was found
            self.began = self.began or time.monotonic()
            self.new_tokens += event.token is not None
            head = heads.pop(index, "")
            chunk = to_chunk(event, self._texts[index], head)
            if self.asked.discard:
                chunk = replace(chunk, text=head)
            if chunk.finish:
                self._running.remove(index)
                self.finishes.append(chunk.finish)
                if event.finish is None:
                    self.tickets[index].cancel()
            yield replace(chunk, index=index)
        self._timer.cancel()

    def _heads(self) -> dict[int, str]:
        """Tell the texts which ids stand before them; return what they begin with."""
        asked = self.asked
        if not (asked.echo or asked.keep_space):
            return {}
        heads = [
            text.begin(request.tokens)
            for text, request in zip(self._texts, asked.requests, strict=True)
        ]
        return dict(enumerate(heads)) if asked.echo else {}

    def _too_late(self, seconds: float) -> None:
        message = f"the answer was not there within {seconds:g} s, the server's limit"
        self.fail(ApiError(504, message, code="timeout"))
