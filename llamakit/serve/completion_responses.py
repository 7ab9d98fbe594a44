"""HTTP responses with completions, as one object or as a stream; they end with their client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable
from typing import Any

from starlette.requests import Request

from llamakit.llama.chunks import Chunk
from llamakit.serve.admission import Admission
from llamakit.serve.api_errors import ApiError, as_api_error
from llamakit.serve.completion_stream import CompletionStream
from llamakit.serve.metrics import Metrics
from llamakit.serve.middleware import Receive, Scope, Send, error_response
from llamakit.serve.openai_format import AnswerChoice, ResponseFormat
from llamakit.serve.request_log import Record, trace

GONE = 499
"""The status in the log if the client disconnects before the response has begun."""

PATIENCE = 10.0
"""Seconds, after the time limit of an answer, for the client to read it."""


class CompletionResponse:
    """The HTTP response to one completion request: an ASGI application.

    The status is sent with the first token, so that it shows an early failure. The completion is
    cancelled when the client disconnects or the response ends for any other reason.
    """

    def __init__(
        self,
        completion: CompletionStream,
        response_format: ResponseFormat,
        admission: Admission,
        metrics: Metrics,
        *,
        seconds: float,
        log: bool,
    ) -> None:
        self._completion, self._format = completion, response_format
        self._admission, self._metrics, self._log = admission, metrics, log
        self._choices = [AnswerChoice() for _ in completion.request.choices]
        self._started = False
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        record: Record = scope["llamakit.record"]
        try:
            work = self._stream(send) if self._completion.request.stream else self._full(send)
            if not await self._unless_gone(work, scope, receive, self._seconds + PATIENCE):
                record.notes["gone"] = True
                if self._completion.stalled.done():
                    record.notes["unread"] = self._completion.stalled.result()
                record.status = record.status or GONE
                self._metrics.gone.inc()
        except ApiError as error:
            record.notes["error"] = error.code or error.status
            if error.code == "internal_error" and error.__cause__ is not None:
                cause = error.__cause__
                record.notes |= {"cause": type(cause).__name__, "trace": trace(cause)}
            work = self._send_error(error, scope, receive, send)
            await self._unless_gone(work, scope, receive, PATIENCE)
        finally:
            self._admission.release(self._completion)
            self._note(record)

    async def _unless_gone(
        self, work: Awaitable[None], scope: Scope, receive: Receive, seconds: float
    ) -> bool:
        """Run something as the function does; close the connection if it has not ended."""
        ended = await _unless_gone(work, receive, seconds, self._completion.stalled)
        if not ended:
            scope["llamakit.connection"].give_up()
        return ended

    async def _send_error(
        self, error: ApiError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send an error, as an event if the stream has begun."""
        if self._started:
            await self._event(send, self._format.error_event(error))
            await send({"type": "http.response.body", "body": b""})
        else:
            await error_response(error)(scope, receive, send)

    async def _full(self, send: Send) -> None:
        async for chunk in self._completion:
            self._add(chunk)
        self._format.new_tokens = self._completion.new_tokens
        body = await self._body()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _body(self) -> bytes:
        """Return the whole response; between two choices, others have the event loop.

        A choice with the likeliest tokens of each position can have 100,000 numbers.
        """
        if not self._format.has_choices:
            return _json(self._format.full_response(self._choices))
        head = self._format.full_response([])
        del head["choices"]
        choices = []
        for index, answer in enumerate(self._choices):
            choices.append(_json(self._format.choice(index, answer)))
            await asyncio.sleep(0)
        return _json(head)[:-1] + b', "choices": [' + b", ".join(choices) + b"]}"

    async def _stream(self, send: Send) -> None:
        async for chunk in self._completion:
            if not self._started:
                self._started = True
                headers = [
                    (b"content-type", b"text/event-stream; charset=utf-8"),
                    (b"cache-control", b"no-store"),
                    (b"x-accel-buffering", b"no"),
                ]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            self._add(chunk)
            for event in self._format.stream_events(chunk):
                await self._event(send, event)
        if usage := self._format.usage_event():
            await self._event(send, usage)
        done = self._format.done
        await send({"type": "http.response.body", "body": done, "more_body": False})

    async def _event(self, send: Send, event: dict[str, Any]) -> None:
        data = self._format.encoded(event)
        await send({"type": "http.response.body", "body": data, "more_body": True})

    def _add(self, chunk: Chunk) -> None:
        choice = self._choices[chunk.index]
        choice.text += chunk.text
        choice.finish = chunk.finish
        request = self._completion.request
        if request.keeps_chunks:
            choice.chunks.append(chunk)

    def _note(self, record: Record) -> None:
        completion = self._completion
        self._metrics.prompt_tokens.inc(completion.request.prompt_tokens)
        self._metrics.new_tokens.inc(completion.new_tokens)
        self._metrics.drafted.inc(sum(drafted for drafted, _ in completion.drafts))
        self._metrics.accepted.inc(sum(accepted for _, accepted in completion.drafts))
        record.notes |= {
            "prompt_tokens": completion.request.prompt_tokens,
            "new_tokens": completion.new_tokens,
            "finish": ",".join(dict.fromkeys(completion.finishes)) or "none",
        }
        if completion.began is not None:
            first = completion.began - completion.arrived
            self._metrics.first.observe(first)
            record.notes["first_token_seconds"] = round(first, 4)
        if len(completion.finishes) == len(completion.request.choices):
            self._metrics.whole.observe(time.monotonic() - completion.arrived)
        if self._log:
            record.notes["answers"] = [choice.text for choice in self._choices]


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


async def _unless_gone(
    work: Awaitable[None], receive: Receive, seconds: float, stalled: asyncio.Future[int]
) -> bool:
    """Run something until it ends or the client disconnects; return whether it ended.

    A client that reads nothing for some seconds, or has stalled, counts as disconnected.
    """
    sending = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(_gone(receive))
    try:
        ends: set[asyncio.Future[Any]] = {sending, disconnect, stalled}
        await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            return False
        try:
            sending.result()
        except OSError:  # the client disconnected while something was sent
            return False
        return True
    finally:
        for task in (sending, disconnect):
            task.cancel()
        await asyncio.gather(sending, disconnect, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def failed(request: Request, error: Exception) -> ApiError:
    """Return the API error for an exception, and log its code."""
    api_error = as_api_error(error)
    record: Record = request.scope["llamakit.record"]
    record.notes["error"] = api_error.code or type(error).__name__
    return api_error


def gone(record: Record, metrics: Metrics) -> ApiError:
    """Log and count a client that has gone before its turn; return what ends its request."""
    record.notes["gone"] = True
    metrics.gone.inc()
    return ApiError(GONE, "the client has disconnected", code="disconnected")
