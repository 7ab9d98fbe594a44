"""Streams of the engine: the events of a request, for a thread that waits or for a function."""

from __future__ import annotations

import queue
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from llamakit.runtime.requests import Event, Request, RunningRow

Listener = Callable[[Sequence[Event] | BaseException], None]
Delivery = tuple[Listener, Sequence[Event] | BaseException]
"""What a listener is called with."""

SLICE_SECONDS = 1.0
"""How long a request answers before it gives its slot to a client that has none."""
REPAID = 4
"""And it answers so many times longer than its prompt took, which is computed again afterwards."""


@dataclass(eq=False)
class RequestStream:
    """The events of one submitted request, for the thread that iterates over them.

    Args:
        client: who submitted it; when all slots are taken, clients take turns.
        drop: has the engine end the request, from any thread.
    """

    request: Request
    client: Hashable
    drop: Callable[[RequestStream], None]
    paused: RunningRow | None = None
    """The row of a request whose slot another client has got."""
    began: float | None = None
    """When its first event came."""
    started: float = 0.0
    """When it got its slot."""
    answered: float = 0.0
    """When its first event came since then; 0.0 before."""
    held: list[Event] = field(default_factory=list)
    """Its events so far, if they are delivered together."""
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
        self.drop(self)

    def put(self, event: Event | BaseException) -> None:
        """Add an event, or the error that ends the stream."""
        self._events.put(event)

    def answer(self, event: Event, now: float) -> None:
        """Add an event of a step that has ended now."""
        self.answered = self.answered or now
        if self.began is None:
            self.began = now
        self.put(event)

    def has_had_its_turn(self, now: float) -> bool:
        """Whether it has had its slot for long enough to give it to another client."""
        least = max(SLICE_SECONDS, REPAID * (self.answered - self.started))
        return self.answered > 0 and now - self.answered >= least


@dataclass(eq=False)
class CallbackStream(RequestStream):
    """A request whose events are passed to a function.

    Args:
        listen: called with the events of a step, or with the error that ends the stream.
        outbox: what the engine delivers after the step.
        whole: its events are delivered together, with the last one.
    """

    listen: Listener = lambda events: None  # noqa: ARG005
    outbox: list[Delivery] = field(default_factory=list)
    whole: bool = False

    def put(self, event: Event | BaseException) -> None:
        """Add an event, or the error that ends the stream."""
        if isinstance(event, BaseException):
            self.outbox.append((self.listen, event))
        elif not self.whole:
            self.outbox.append((self.listen, (event,)))
        else:
            self.held.append(event)
            if event.finish:
                self.outbox.append((self.listen, self.held))
