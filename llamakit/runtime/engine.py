"""A thread-safe engine: any thread submits a request and gets a stream of its events."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from llamakit.errors import LlamakitError, ParallelError
from llamakit.runtime.fair_queue import FairQueue
from llamakit.runtime.request_stream import CallbackStream, Delivery, Listener, RequestStream
from llamakit.runtime.requests import Event, Request
from llamakit.runtime.scheduler import Scheduler

__all__ = ["Engine", "RequestStream"]

SHARED_SECONDS = 1.0
"""After the last request of another client, until one has all slots again."""

_NOBODY: Hashable = object()


class Engine:
    """Runs a scheduler in a thread of its own; requests join and leave between two steps.

    The other threads only put messages into a queue. Requests wait until a slot is free, and
    clients take turns. If a step fails, every running request gets the error, and the waiting
    ones run in a new scheduler.

    Args:
        open_scheduler: opens the scheduler, and again after a failure.
        deliver: called in the engine's thread with what listeners are to be called with, all of a
            step at once; it has to be quick. None calls them there.
    """

    def __init__(
        self,
        open_scheduler: Callable[[], Scheduler],
        deliver: Callable[[Sequence[Delivery]], None] | None = None,
    ) -> None:
        self._open = open_scheduler
        self._deliver = deliver or _call_each
        self._outbox: list[Delivery] = []  # of the engine's thread
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting: FairQueue[RequestStream] = FairQueue()
        self._running: dict[int, RequestStream] = {}  # by the scheduler's index
        self._scheduler: Scheduler | None = None
        self._closing = False
        self._shared_until = 0.0
        self._newest: Hashable = _NOBODY  # whose request has come last
        self._thread = threading.Thread(target=self._run, name="llamakit engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        request: Request,
        *,
        client: Hashable = None,
        listen: Listener | None = None,
        whole: bool = False,
    ) -> RequestStream:
        """Submit a request, from any thread.

        Args:
            client: whose turn the request takes.
            listen: called with the events of each step, instead of iterating over the stream; an
                exception is the last thing it gets.
            whole: it is called once, with all events, when the request has ended.
        """
        if listen is None:
            stream = RequestStream(request, client, self._drop_soon)
        else:
            stream = CallbackStream(
                request, client, self._drop_soon, listen=listen, outbox=self._outbox, whole=whole
            )
        self.call_soon(lambda: self._enqueue(stream))
        if not self._thread.is_alive():
            error = LlamakitError("the engine is closed")
            if listen is None:
                stream.put(error)
            else:
                self._deliver([(listen, error)])
        return stream

    def close(self) -> None:
        """End all requests and free the cache, after the step that is running."""
        self.call_soon(self._stop)
        self._thread.join()

    def call_soon(self, message: Callable[[], None]) -> None:
        """Call something in the engine's thread between two steps."""
        self._inbox.put(message)

    def _drop_soon(self, stream: RequestStream) -> None:
        self.call_soon(lambda: self._drop(stream))

    def _drop(self, stream: RequestStream) -> None:
        """End a request. Only for the engine's thread."""
        if self._waiting.remove(stream.client, stream):
            stream.put(Event(-1, None, finish="cancelled"))
        for index, other in list(self._running.items()):
            if other is stream and self._scheduler is not None:
                del self._running[index]
                self._scheduler.cancel(index)
                stream.put(Event(index, None, finish="cancelled"))

    def _run(self) -> None:
        while not self._closing:
            if not (self._running or self._waiting):
                self._inbox.get()()  # idle: block until a message comes
            while not self._inbox.empty():
                self._inbox.get()()
            if not self._closing:
                self._admit()
            if self._running:
                self._step()
            self._flush()
        while not self._inbox.empty():  # submitted while closing
            self._inbox.get()()
        self._flush()

    def _flush(self) -> None:
        """Deliver what has come for listeners."""
        if self._outbox:
            deliveries = self._outbox.copy()
            self._outbox.clear()  # the streams hold this list
            self._deliver(deliveries)

    def _step(self) -> None:
        assert self._scheduler is not None
        try:
            events = self._scheduler.step()
        except Exception as error:  # noqa: BLE001 (passed on to the waiting threads)
            self._fail(error)
            return
        now = time.monotonic()
        for event in events:
            stream = self._running.get(event.index)
            if stream is not None:
                stream.answer(event, now)
                if event.finish:
                    del self._running[event.index]

    def _enqueue(self, stream: RequestStream) -> None:
        if self._closing:
            stream.put(LlamakitError("the engine is closed"))
            return
        if self._newest not in (_NOBODY, stream.client):
            self._shared_until = time.monotonic() + SHARED_SECONDS
        self._newest = stream.client
        self._waiting.put(stream.client, stream)

    def _admit(self) -> None:
        """Give free slots to waiting requests."""
        while self._waiting:
            client = self._next_client()
            if client is _NOBODY:
                return
            stream = self._waiting.pop(client)
            try:
                self._start(stream)
            except Exception as error:  # noqa: BLE001 (passed on to the submitter)
                stream.put(error)

    def _start(self, stream: RequestStream) -> None:
        if self._scheduler is None:
            self._scheduler = self._open()
        row, stream.paused = stream.paused, None
        if row is None:
            index = self._scheduler.submit(stream.request)
        else:
            index = self._scheduler.resume(row)
        self._running[index] = stream
        stream.started, stream.answered = time.monotonic(), 0.0

    def _next_client(self) -> Hashable:
        """Return whose waiting request gets a slot now; ``_NOBODY`` if all have to wait.

        While several clients have requests, none has more slots than the scheduler's share, or than
        all others could fill: a larger batch is computed more slowly. A client without a slot gets
        those that another has beyond that. Without a free one, a request that has been answering
        for a while waits for a client that has none.
        """
        if self._scheduler is None:
            return self._waiting.clients[0]
        counts = Counter(stream.client for stream in self._running.values())
        if len({*counts, *self._waiting.clients}) > 1:
            self._shared_until = time.monotonic() + SHARED_SECONDS
        elif time.monotonic() > self._shared_until:
            return self._waiting.clients[0] if self._scheduler.free else _NOBODY
        poorest = min(self._waiting.clients, key=lambda client: counts[client])
        if counts and not (self._scheduler.free and counts[poorest]):
            richest = counts.most_common(1)[0][0]
            least = counts[poorest] + 1
            self._take_slots(richest, counts[richest], max(self._most(richest, counts), least))
        if not self._scheduler.free and not counts[poorest]:
            self._take_turn()
        if not self._scheduler.free or counts[poorest] >= self._most(poorest, counts):
            return _NOBODY
        return poorest

    def _most(self, client: Hashable, counts: Counter[Hashable]) -> int:
        """Return how many slots a client may have beside others.

        Args:
            counts: the running requests of each client.
        """
        assert self._scheduler is not None
        own = counts[client] + self._waiting.count(client)
        return max(self._scheduler.share, len(self._running) + len(self._waiting) - own)

    def _take_slots(self, client: Hashable, count: int, most: int) -> None:
        """Pause the newest of a client's running requests, until so many are left."""
        for index, stream in reversed(list(self._running.items())):
            if count <= most:
                return
            if stream.client == client:
                count -= self._pause(index, stream)

    def _take_turn(self) -> None:
        """Pause the request that has had its slot for longest, if that is long enough."""
        now = time.monotonic()
        due = [it for it in self._running.items() if it[1].has_had_its_turn(now)]
        for index, stream in sorted(due, key=lambda it: it[1].answered):
            if self._pause(index, stream):
                return

    def _pause(self, index: int, stream: RequestStream) -> bool:
        """Take a request's slot; return False if it cannot be taken."""
        assert self._scheduler is not None
        row = self._scheduler.pause(index)
        if row is None:
            return False
        del self._running[index]
        stream.paused = row
        self._waiting.put_back(stream.client, stream)
        return True

    def _fail(self, error: Exception) -> None:
        for stream in self._running.values():
            stream.put(error)
        self._running.clear()
        self._free()

    def _stop(self) -> None:
        self._closing = True
        for stream in [*self._waiting, *self._running.values()]:
            self._drop(stream)
        self._free()

    def _free(self) -> None:
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            with contextlib.suppress(ParallelError):  # a rank that is gone holds nothing
                scheduler.close()


def _call_each(deliveries: Sequence[Delivery]) -> None:
    for listen, events in deliveries:
        listen(events)
