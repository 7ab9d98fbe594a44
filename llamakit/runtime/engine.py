"""One engine for several threads: each asks, and waits for its own answer."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from llamakit.errors import LlamakitError, ParallelError
from llamakit.runtime.fair_queue import FairQueue
from llamakit.runtime.requests import Event, Request
from llamakit.runtime.scheduler import Scheduler


@dataclass(eq=False)
class Ticket:
    """One request that a thread has handed in: iterate over it for its events.

    Args:
        client: whose it is: when there are more requests than slots, clients take turns.
    """

    request: Request
    client: Hashable
    _engine: Engine
    _events: queue.SimpleQueue[Event | BaseException] = field(default_factory=queue.SimpleQueue)

    def __iter__(self) -> Iterator[Event]:
        """Yield the events until the one that has a ``finish``.

        Raises:
            LlamakitError: the request was refused or has failed, or the engine has.
        """
        while True:
            event = self._events.get()
            if isinstance(event, BaseException):
                raise event
            if event.error is not None:
                raise event.error
            yield event
            if event.finish:
                return

    def cancel(self) -> None:
        """End the request; its last event has the finish ``cancelled``."""
        self._engine.tell(lambda: self._engine.drop(self))

    def put(self, event: Event | BaseException) -> None:
        """Hand over an event, or what went wrong."""
        self._events.put(event)


@dataclass(eq=False)
class HeardTicket(Ticket):
    """A request whose events go to a function, in the engine's thread, as they come."""

    listen: Callable[[Event | BaseException], None] = lambda event: None  # noqa: ARG005

    def put(self, event: Event | BaseException) -> None:
        """Hand over an event, or what went wrong."""
        self.listen(event)


class Engine:
    """Runs a scheduler in a thread of its own; requests join and leave between two steps.

    The other threads only put messages into a queue. Requests wait here until a slot is free, and
    clients take turns at those. When a step fails, every request that was under way gets the
    error, and those that wait run in a new scheduler.

    Args:
        open_scheduler: opens the scheduler, and again after a failure.
    """

    def __init__(self, open_scheduler: Callable[[], Scheduler]) -> None:
        self._open = open_scheduler
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting: FairQueue[Ticket] = FairQueue()
        self._tickets: dict[int, Ticket] = {}  # those at work
        self._scheduler: Scheduler | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="llamakit engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        request: Request,
        *,
        client: Hashable = None,
        listen: Callable[[Event | BaseException], None] | None = None,
    ) -> Ticket:
        """Hand in a request, from any thread.

        Args:
            client: whose turn it takes.
            listen: called with each event in the engine's thread, instead of iterating over the
                ticket; it has to be quick, and an exception is the last thing it gets.
        """
        if listen is None:
            ticket = Ticket(request, client, self)
        else:
            ticket = HeardTicket(request, client, self, listen=listen)
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
        if self._waiting.remove(ticket.client, ticket):
            ticket.put(Event(-1, None, finish="cancelled"))
        for index, other in list(self._tickets.items()):
            if other is ticket and self._scheduler is not None:
                del self._tickets[index]
                self._scheduler.cancel(index)
                ticket.put(Event(index, None, finish="cancelled"))

    def _run(self) -> None:
        while not self._closing:
            if not (self._tickets or self._waiting):
                self._inbox.get()()  # nothing to do until somebody asks
            while not self._inbox.empty():
                self._inbox.get()()
            if not self._closing:
                self._let_in()
            if self._tickets:
                self._step()
        while not self._inbox.empty():  # those who came too late
            self._inbox.get()()

    def _step(self) -> None:
        assert self._scheduler is not None
        try:
            events = self._scheduler.step()
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
        if self._closing:
            ticket.put(LlamakitError("the engine is closed"))
        else:
            self._waiting.put(ticket.client, ticket)

    def _let_in(self) -> None:
        """Give free slots to those who wait."""
        while self._waiting and (self._scheduler is None or self._scheduler.free):
            ticket = self._waiting.pop()
            try:
                if self._scheduler is None:
                    self._scheduler = self._open()
                self._tickets[self._scheduler.submit(ticket.request)] = ticket
            except Exception as error:  # noqa: BLE001 (the one who asked has to hear of it)
                ticket.put(error)

    def _fail(self, error: Exception) -> None:
        for ticket in self._tickets.values():
            ticket.put(error)
        self._tickets.clear()
        self._free()

    def _stop(self) -> None:
        self._closing = True
        for ticket in [*self._waiting, *self._tickets.values()]:
            self.drop(ticket)
        self._free()

    def _free(self) -> None:
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            with contextlib.suppress(ParallelError):  # a rank that is gone holds nothing
                scheduler.close()
