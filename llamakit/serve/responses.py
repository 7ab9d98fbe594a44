"""Sending answers, whole or as a stream, while watching whether the client is still there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable
from typing import Any

from starlette.requests import Request

from llamakit.llama.chunks import Chunk
from llamakit.serve.admission import Admission
from llamakit.serve.answer_stream import Answers
from llamakit.serve.api_errors import ApiError, as_api_error
from llamakit.serve.guard import Receive, Scope, Send, error_response, write_trace
from llamakit.serve.metrics import Metrics
from llamakit.serve.openai_format import AnswerChoice, Shape
from llamakit.serve.request_log import Record

GONE = 499
"""The status that the log shows of a request whose client went away before there was any."""

PATIENCE = 10.0
"""Seconds after the time for an answer in which the client has to have read it."""


class HttpAnswer:
    """The response to one request for answers: an ASGI application of its own.

    The status waits for the first id, so that a request that fails says so in it. A client that
    goes away ends its answers, and so does anything else that ends this.
    """

    def __init__(
        self,
        answers: Answers,
        shape: Shape,
        admission: Admission,
        metrics: Metrics,
        *,
        seconds: float,
        log: bool,
    ) -> None:
        self._answers, self._shape = answers, shape
        self._admission, self._metrics, self._log = admission, metrics, log
        self._choices = [AnswerChoice() for _ in answers.asked.requests]
        self._started = False
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        record: Record = scope["llamakit.record"]
        try:
            work = self._stream(send) if self._answers.asked.stream else self._whole(send)
            if not await _unless_gone(work, receive, self._seconds + PATIENCE):
                record.notes["gone"] = True
                record.status = record.status or GONE
                self._metrics.gone.inc()
        except ApiError as error:
            record.notes["error"] = error.code or error.status
            if error.code == "internal_error" and error.__cause__ is not None:
                write_trace(error.__cause__)
            await _unless_gone(self._say(error, scope, receive, send), receive, PATIENCE)
        finally:
            self._admission.done(self._answers)
            self._note(record)

    async def _say(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        """Say what went wrong, in the stream if that has begun."""
        if self._started:
            await _event(send, error.body())
            await send({"type": "http.response.body", "body": b""})
        else:
            await error_response(error)(scope, receive, send)

    async def _whole(self, send: Send) -> None:
        async for chunk in self._answers:
            self._shape.count(chunk)
            self._add(chunk)
        body = json.dumps(self._shape.whole(self._choices), ensure_ascii=False).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, send: Send) -> None:
        async for chunk in self._answers:
            if not self._started:
                self._started = True
                headers = [
                    (b"content-type", b"text/event-stream; charset=utf-8"),
                    (b"cache-control", b"no-store"),
                    (b"x-accel-buffering", b"no"),
                ]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            self._add(chunk)
            for piece in self._shape.pieces(chunk):
                await _event(send, piece)
        if self._answers.asked.include_usage:
            await _event(send, self._shape.last())
        done = b"data: [DONE]\n\n"
        await send({"type": "http.response.body", "body": done, "more_body": False})

    def _add(self, chunk: Chunk) -> None:
        choice = self._choices[chunk.index]
        choice.text += chunk.text
        choice.finish = chunk.finish
        if self._answers.asked.top is not None:
            choice.chunks.append(chunk)

    def _note(self, record: Record) -> None:
        answers = self._answers
        self._metrics.prompt_tokens.inc(answers.asked.prompt_tokens)
        self._metrics.new_tokens.inc(answers.new_tokens)
        self._metrics.drafted.inc(sum(drafted for drafted, _ in answers.drafts))
        self._metrics.accepted.inc(sum(accepted for _, accepted in answers.drafts))
        record.notes |= {
            "prompt_tokens": answers.asked.prompt_tokens,
            "new_tokens": answers.new_tokens,
            "finish": ",".join(dict.fromkeys(answers.finishes)) or "none",
        }
        if answers.began is not None:
            first = answers.began - answers.arrived
            self._metrics.first.observe(first)
            record.notes["first_token_seconds"] = round(first, 4)
        if len(answers.finishes) == len(answers.asked.requests):
            self._metrics.whole.observe(time.monotonic() - answers.arrived)
        if self._log:
            record.notes["answers"] = [choice.text for choice in self._choices]


async def _event(send: Send, value: dict[str, Any]) -> None:
    data = b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _unless_gone(work: Awaitable[None], receive: Receive, seconds: float) -> bool:
    """Do something while the client is there; say whether it was, to the end.

    One that does not read what is sent is as good as gone after some seconds.
    """
    doing = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({doing, watching}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return False
        try:
            doing.result()
        except OSError:  # the client went away while something was sent
            return False
        return True
    finally:
        for task in (doing, watching):
            task.cancel()
        await asyncio.gather(doing, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def failed(request: Request, error: Exception) -> ApiError:
    """Return what a client is told of an exception, and note it."""
    told = as_api_error(error)
    record: Record = request.scope["llamakit.record"]
    record.notes["error"] = told.code or type(error).__name__
    return told
