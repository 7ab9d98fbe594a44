"""Admission control: submits requests to the engine while the queue has room."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial

from llamakit.errors import ParallelError
from llamakit.llama.llama import Llama
from llamakit.runtime.requests import Event
from llamakit.serve.api_errors import ApiError
from llamakit.serve.completion_request import CompletionRequest
from llamakit.serve.completion_stream import CompletionStream
from llamakit.serve.metrics import Metrics
from llamakit.serve.server_settings import Limits

FOR_NEWCOMERS = 4
"""One part in so many of the queue is reserved for clients that have nothing in it."""
LONGEST_RETRY = 60
"""The largest ``Retry-After``, in seconds."""

_OnEvent = Callable[[Event | BaseException], None]


class Admission:
    """Submits requests to the engine while the queue has room, and refuses them otherwise.

    For one event loop; the engine runs in a thread of its own.
    """

    def __init__(self, llama: Llama, limits: Limits, metrics: Metrics) -> None:
        self.slots = llama.max_batch_size
        self._limits = limits
        self._metrics = metrics
        self._tokenizer = llama.tokenizer
        self._engine = llama.engine()
        self._inbox = Inbox(asyncio.get_running_loop())
        self._in_flight: Counter[Hashable] = Counter()  # choices that have not ended, by client
        self._completions: set[CompletionStream] = set()
        self._seconds = 1.0  # the moving average of an answer's time
        self.closing = False
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails when a rank has died: nothing can be answered any more."""

    @property
    def in_flight(self) -> int:
        """How many choices wait or are being generated."""
        return sum(self._in_flight.values())

    @property
    def waiting(self) -> int:
        """How many choices have no slot."""
        return max(0, self.in_flight - self.slots)

    def submit(
        self, request: CompletionRequest, client: Hashable, seconds: float | None = None
    ) -> CompletionStream:
        """Submit a request to the engine. The caller has to call ``release`` in the end.

        Args:
            seconds: the time limit of the completion; None is the server's.
        Raises:
            ApiError: 429, the queue is full; 503, the server is shutting down.
        """
        if self.closing:
            raise ApiError(503, "the server is shutting down", code="shutting_down")
        self._check_room(len(request.choices), client)

        def ended() -> None:
            self._leave(client, 1)

        limits = replace(self._limits, seconds=seconds or self._limits.seconds)
        completion = CompletionStream(request, self._tokenizer, limits, ended)
        self._in_flight[client] += len(request.choices)
        self._completions.add(completion)
        for index, choice in enumerate(request.choices):
            listen = partial(self._inbox.put, partial(self._on_event, completion, index))
            completion.streams.append(self._engine.submit(choice, client=client, listen=listen))
        self._count()
        return completion

    def release(self, completion: CompletionStream) -> None:
        """Release a completion; if it is not finished, its slots are free at the next step."""
        self._completions.discard(completion)
        completion.cancel()
        if completion.began is not None:
            taken = time.monotonic() - completion.began
            self._seconds = 0.8 * self._seconds + 0.2 * taken

    def cancel_all(self) -> None:
        """End all running completions: the grace period is over."""
        for completion in list(self._completions):
            completion.fail(ApiError(503, "the server is shutting down", code="shutting_down"))

    def close(self) -> None:
        """End the engine's thread and free its cache."""
        self._engine.close()

    def _on_event(
        self, completion: CompletionStream, index: int, event: Event | BaseException
    ) -> None:
        completion.put(index, event)
        if isinstance(event, ParallelError) and not self.broken.done():
            self.closing = True
            self.broken.set_exception(event)

    def _check_room(self, count: int, client: Hashable) -> None:
        room = self.slots + self._limits.waiting - self.in_flight
        if self._in_flight[client]:
            room -= self._limits.waiting // FOR_NEWCOMERS
        if count > room and self.in_flight:
            self._metrics.refused.inc()
            seconds = math.ceil(self._seconds * (1 + self.waiting / self.slots))
            raise ApiError(
                429,
                f"the queue is full: {self.waiting} answers wait for {self.slots} slots",
                code="queue_full",
                headers={"Retry-After": str(max(1, min(LONGEST_RETRY, seconds)))},
            )

    def _leave(self, client: Hashable, count: int) -> None:
        self._in_flight[client] -= count
        if not self._in_flight[client]:
            del self._in_flight[client]
        self._count()

    def _count(self) -> None:
        self._metrics.running.set(min(self.in_flight, self.slots))
        self._metrics.waiting.set(self.waiting)


class Inbox:
    """Passes events from the engine's thread to the event loop, which is woken once for many.

    Each time costs a call of the system, and the engine's thread Python's lock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: deque[tuple[_OnEvent, Event | BaseException]] = deque()
        self._is_woken = False

    def put(self, on_event: _OnEvent, event: Event | BaseException) -> None:
        """Have a function called with an event; from the engine's thread."""
        self._events.append((on_event, event))
        if not self._is_woken:
            self._wake()

    def _wake(self) -> None:
        self._is_woken = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is waiting
            self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._is_woken = False  # before the events are taken: one that comes now is not missed
        try:
            while self._events:
                on_event, event = self._events.popleft()
                on_event(event)
        finally:
            if self._events:
                self._wake()
