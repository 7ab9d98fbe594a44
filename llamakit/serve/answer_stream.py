"""The answers to one request, from the engine's events to chunks of text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from llamakit.llama.chunks import Chunk, to_chunk
from llamakit.protocols import Tokenizer
from llamakit.runtime.engine import Ticket
from llamakit.runtime.requests import Event
from llamakit.runtime.text_stream import TextStream
from llamakit.serve.api_errors import ApiError, as_api_error
from llamakit.serve.request_parser import Asked


class Answers:
    """The answers to one HTTP request, as chunks whose ``index`` is the choice's.

    Events become text as they come, whether somebody reads it or not: a stop text ends an answer
    at once, and a client that reads slowly holds up nothing.

    Args:
        seconds: how long they may take.
        ended: called for each choice when the engine has no more to do for it.
    """

    def __init__(
        self, asked: Asked, tokenizer: Tokenizer, seconds: float, ended: Callable[[], None]
    ) -> None:
        self.asked = asked
        self.tickets: list[Ticket] = []
        self.arrived = time.monotonic()
        self.began: float | None = None  # when the first id was there
        self.new_tokens = 0
        self.drafts = [(0, 0)] * len(asked.requests)
        """Of each choice, how many ids have been drafted so far, and how many of them right."""
        self.finishes: list[str] = []
        self._ended = ended
        self._texts = [TextStream(tokenizer, asked.stop) for _ in asked.requests]
        self._heads = self._begin()
        self._running = set(range(len(asked.requests)))
        self._chunks: asyncio.Queue[Chunk | ApiError] = asyncio.Queue()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._too_late, seconds)

    def put(self, index: int, event: Event | BaseException) -> None:
        """Take an event of a choice, or what went wrong."""
        if index not in self._running:
            return  # it was at work when its stop text was found
        error = event if isinstance(event, BaseException) else event.error
        if error is not None:
            self._end(index)
            self.fail(as_api_error(error))
            return
        assert isinstance(event, Event)
        self.began = self.began or time.monotonic()
        self.new_tokens += event.token is not None
        self.drafts[index] = (event.drafted, event.accepted)
        head = self._heads.pop(index, "")
        chunk = replace(to_chunk(event, self._texts[index], head), index=index)
        if self.asked.discard:
            chunk = replace(chunk, text=head)
        if chunk.finish:
            self.finishes.append(chunk.finish)
            if event.finish is None:
                self.tickets[index].cancel()
            self._end(index)
        self._chunks.put_nowait(chunk)

    def fail(self, error: ApiError) -> None:
        """End all choices with an error."""
        self.cancel()
        self._chunks.put_nowait(error)

    def cancel(self) -> None:
        """End the choices that still run."""
        for index in list(self._running):
            self.tickets[index].cancel()
            self._end(index)
        self._timer.cancel()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield what is added to each choice, until all have ended.

        Raises:
            ApiError: a choice has failed; the others are ended.
        """
        finished = 0
        while finished < len(self.asked.requests):
            chunk = await self._chunks.get()
            if isinstance(chunk, ApiError):
                raise chunk
            finished += chunk.finish is not None
            yield chunk

    def _begin(self) -> dict[int, str]:
        """Tell the texts which ids stand before them; return what they begin with."""
        if not (self.asked.echo or self.asked.keep_space):
            return {}
        heads = [
            text.begin(request.tokens)
            for text, request in zip(self._texts, self.asked.requests, strict=True)
        ]
        return dict(enumerate(heads)) if self.asked.echo else {}

    def _end(self, index: int) -> None:
        self._running.remove(index)
        self._ended()
        if not self._running:
            self._timer.cancel()

    def _too_late(self, seconds: float) -> None:
        message = f"the answer was not there within {seconds:g} s, the server's limit"
        self.fail(ApiError(504, message, code="timeout"))
