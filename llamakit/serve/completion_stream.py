"""The stream of one completion: events of the engine in, chunks of text out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from llamakit.llama.chunks import Chunk, to_chunk
from llamakit.protocols import Tokenizer
from llamakit.runtime.engine import RequestStream
from llamakit.runtime.requests import Event
from llamakit.runtime.text_stream import TextStream
from llamakit.serve.api_errors import ApiError, as_api_error
from llamakit.serve.completion_request import CompletionRequest
from llamakit.serve.server_settings import Limits


class CompletionStream:
    """The answers to one HTTP request, as chunks whose ``index`` is the choice's.

    Events are decoded as they come, whether the client reads them or not: a stop string ends an
    answer at once, and a slow client delays nothing. One that leaves too much unread has its
    answers ended.

    Args:
        limits: of its time, and of what may be unread.
        ended: called for each choice when it has ended.
    """

    def __init__(
        self,
        request: CompletionRequest,
        tokenizer: Tokenizer,
        limits: Limits,
        ended: Callable[[], None],
    ) -> None:
        self.request = request
        self.streams: list[RequestStream] = []
        self.arrived = time.monotonic()
        self.new_tokens = 0
        self.drafts = [(0, 0)] * len(request.choices)
        """Of each choice, how many tokens have been drafted so far, and how many accepted."""
        self.finishes: list[str] = []
        self._ended = ended
        self._texts = [TextStream(tokenizer, request.stop) for _ in request.choices]
        self._heads = self._begin()
        self._running = set(range(len(request.choices)))
        self._chunks: asyncio.Queue[Chunk | ApiError] = asyncio.Queue()
        self._unread, self._most_unread = 0, limits.unread
        self._loop = asyncio.get_running_loop()
        self.stalled: asyncio.Future[int] = self._loop.create_future()
        """Has a result, the number of unread chunks, when the client has left too many unread."""
        self._timer = self._loop.call_later(limits.seconds, self._too_late, limits.seconds)

    @property
    def began(self) -> float | None:
        """When the first token came."""
        return min((it.began for it in self.streams if it.began is not None), default=None)

    def put(self, index: int, events: Sequence[Event] | BaseException) -> None:
        """Add the events of a choice, of one step or all, or the error that ends it."""
        if index not in self._running:
            return  # came after its stop string was found
        error = events if isinstance(events, BaseException) else events[-1].error
        if error is not None:
            self._end(index)
            self.fail(as_api_error(error))
            return
        assert not isinstance(events, BaseException)
        self._count(index, events)
        chunk = self._chunk(index, events)
        if chunk.finish:
            self.finishes.append(chunk.finish)
            if events[-1].finish is None:
                self.streams[index].cancel()
            self._end(index)
        self._chunks.put_nowait(chunk)
        self._unread += _weight(chunk)
        if self.request.stream and self._unread > self._most_unread:
            # the reader, whom this chunk wakes, comes first: the server may have been busy
            self._loop.call_soon(self._check_unread)

    def _chunk(self, index: int, events: Sequence[Event]) -> Chunk:
        """Make one chunk of the events of a choice."""
        text, last = self._texts[index], events[-1]
        text.skip([it.token for it in events[:-1] if it.token is not None])
        return replace(to_chunk(last, text, self._heads.pop(index, "")), index=index)

    def _count(self, index: int, events: Sequence[Event]) -> None:
        self.new_tokens += sum(event.token is not None for event in events)
        self.drafts[index] = (events[-1].drafted, events[-1].accepted)

    def fail(self, error: ApiError) -> None:
        """End all choices with an error."""
        self.cancel()
        self._chunks.put_nowait(error)

    def cancel(self) -> None:
        """Cancel the choices that still run."""
        for index in list(self._running):
            self.streams[index].cancel()
            if held := self.streams[index].held.copy():  # the engine's thread adds to it
                self._count(index, held)
            self._end(index)
        self._timer.cancel()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield chunks until all choices have ended.

        Raises:
            ApiError: a choice has failed; the others are ended.
        """
        finished = 0
        while finished < len(self.request.choices):
            chunk = await self._chunks.get()
            if isinstance(chunk, ApiError):
                raise chunk
            self._unread -= _weight(chunk)
            finished += chunk.finish is not None
            yield chunk

    def _begin(self) -> dict[int, str]:
        """Pass the prompts to the text streams; return the text that each choice begins with."""
        if not (self.request.echo or self.request.keep_space):
            return {}
        heads = [
            text.begin(request.tokens)
            for text, request in zip(self._texts, self.request.choices, strict=True)
        ]
        return dict(enumerate(heads)) if self.request.echo else {}

    def _end(self, index: int) -> None:
        self._running.remove(index)
        self._ended()
        if not self._running:
            self._timer.cancel()

    def _check_unread(self) -> None:
        if self._unread > self._most_unread and not self.stalled.done():
            self.cancel()
            self.stalled.set_result(self._chunks.qsize())

    def _too_late(self, seconds: float) -> None:
        message = f"the answer was not there within {seconds:g} s, the server's limit"
        self.fail(ApiError(504, message, code="timeout"))


def _weight(chunk: Chunk) -> int:
    """Return how much of the limit a chunk takes: most of its memory is the alternatives'."""
    return 1 + len(chunk.top) + (len(chunk.seen.top) if chunk.seen else 0)
