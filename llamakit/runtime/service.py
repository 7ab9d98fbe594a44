"""One engine for several threads: each asks, and waits for its own answer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from llamakit.errors import LlamakitError
from llamakit.runtime.generator import Generator
from llamakit.runtime.requests import Event, Request


@dataclass(eq=False)
class Ticket:
    """One request that a thread has handed in: iterate over it for its events."""

    request: Request
    _service: Service
    _events: queue.SimpleQueue[Event | BaseException] = field(default_factory=queue.SimpleQueue)

    def __iter__(self) -> Iterator[Event]:
        """Yield the events until the one that has a ``finish``.

        Raises:
            LlamakitError: the request was refused, or the engine has failed.
        """
        while True:
            event = self._events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if event.finish:
                return

    def cancel(self) -> None:
        """End the request; its last event has the finish ``cancelled``."""
        self._service.tell(lambda: self._service.drop(self))

    def put(self, event: Event | BaseException) -> None:
        """Hand over an event, or what went wrong."""
        self._events.put(event)


class Service:
    """Runs a generator in a thread of its own; requests join and leave between two steps.

    The other threads only put messages into a queue. When a step fails, every request that was
    under way gets the error, and the next ones run in a fresh generator.

    Args:
        open_generator: opens the generator, and again after a failure.
    """

    def __init__(self, open_generator: Callable[[], Generator]) -> None:
        self._open = open_generator
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._tickets: dict[int, Ticket] = {}
        self._generator: Generator | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="llamakit engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> Ticket:
        """Hand in a request, from any thread."""
        ticket = Ticket(request, self)
        self.tell(lambda: self._take(ticket))
        if not self._thread.is_alive():
            ticket.put(LlamakitError("the engine is closed"))
        return ticket

    def close(self) -> None:
        """End all requests and free the cache; waits for the step that is under way."""
        self.tell(self._stop)
        self._thread.join()

    def tell(self, message: Callable[[], None]) -> None:
        """Have the engine's thread call something between two steps."""
        self._inbox.put(message)

    def drop(self, ticket: Ticket) -> None:
        """End a request. Only for the engine's thread."""
        for index, other in list(self._tickets.items()):
            if other is ticket and self._generator is not None:
                del self._tickets[index]
                self._generator.cancel(index)
                ticket.put(Event(index, None, finish="cancelled"))

    def _run(self) -> None:
        while not self._closing:
            if not self._tickets:
                self._inbox.get()()  # nothing to do until somebody asks
            while not self._inbox.empty():
                self._inbox.get()()
            if self._tickets and not self._closing:
                self._step()
        while not self._inbox.empty():  # those who came too late
            self._inbox.get()()

    def _step(self) -> None:
        assert self._generator is not None
        try:
            events = self._generator.step()
        except Exception as error:  # noqa: BLE001 (whoever waits has to hear of it)
            self._fail(error)
            return
        for event in events:
            ticket = self._tickets.get(event.index)
            if ticket is not None:
                ticket.put(event)
                if event.finish:
                    del self._tickets[event.index]

    def _take(self, ticket: Ticket) -> None:
        try:
            if self._closing:
                raise LlamakitError("the engine is closed")
            if self._generator is None:
                self._generator = self._open()
            self._tickets[self._generator.submit(ticket.request)] = ticket
        except Exception as error:  # noqa: BLE001 (the one who asked has to hear of it)
            ticket.put(error)

    def _fail(self, error: Exception) -> None:
        for ticket in self._tickets.values():
            ticket.put(error)
        self._tickets.clear()
        generator, self._generator = self._generator, None
        if generator is not None:
            generator.close()

    def _stop(self) -> None:
        self._closing = True
        for ticket in list(self._tickets.values()):
            self.drop(ticket)
        if self._generator is not None:
            self._generator.close()
            self._generator = None
