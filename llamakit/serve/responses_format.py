"""Responses of ``/v1/responses``: output items, whole or as events with names."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from llamakit.llama.chunks import Chunk
from llamakit.serve.api_errors import ApiError
from llamakit.serve.completion_request import CompletionRequest
from llamakit.serve.openai_format import AnswerChoice, ResponseFormat
from llamakit.serve.token_texts import TokenTexts
from llamakit.serve.tool_call_stream import Piece, answer_pieces, call_id

Event = dict[str, Any]


class ResponsesFormat(ResponseFormat):
    """The format of ``/v1/responses``. A request has one answer, whose parts are output items."""

    has_choices = False
    done = b""

    def __init__(self, request: CompletionRequest, texts: TokenTexts, model: str) -> None:
        super().__init__(request, texts, model)
        self._pieces = answer_pieces(request.tools)
        self._items: list[dict[str, Any]] = []
        self._is_open = False
        self._sequence = 0
        self._head = {
            "id": f"resp_{secrets.token_hex(16)}",
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
        }

    # A stream -----------------------------------------------------------------------------------

    def stream_events(self, chunk: Chunk) -> list[Event]:
        """Return the events of the items that a chunk begins, continues and ends."""
        self.count(chunk)
        events = [] if self._sequence else list(self._begin())
        pieces = self._pieces.feed(chunk.text, chunk.token)
        if chunk.finish:
            pieces += self._pieces.end(chunk.finish)
        logprobs = self._logprobs([chunk])
        for piece in pieces:
            events += self._piece(piece, logprobs)
            logprobs = []
        if chunk.finish:
            events += self._close_item()
            events.append(self._ended(chunk.finish))
        return events

    def encoded(self, event: Event) -> bytes:
        """Return an event as it is sent, with its name."""
        return f"event: {event['type']}\n".encode() + super().encoded(event)

    def usage_event(self) -> None:
        """Return nothing: the last event has the usage."""

    def error_event(self, error: ApiError) -> Event:
        """Return the event of a response that has failed."""
        failure = {"code": error.code or "server_error", "message": str(error)}
        return self._event("response.failed", response=self._response("failed", error=failure))

    def _begin(self) -> Iterator[Event]:
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))

    def _ended(self, finish: str) -> Event:
        response = self._finished(finish)
        return self._event(f"response.{response['status']}", response=response)

    def _piece(self, piece: Piece, logprobs: Sequence[Any]) -> Iterator[Event]:
        if piece.kind == "name":
            yield from self._open_item(_call(piece.text))
        elif piece.kind == "arguments":
            self._items[-1]["arguments"] += piece.text
            yield self._item_event("function_call_arguments.delta", delta=piece.text)
        else:
            if not self._is_open or self._items[-1]["type"] != "message":
                yield from self._open_item(_message())
                part = self._items[-1]["content"][0]
                yield self._item_event(
                    "content_part.added", content_index=0, part={**part, "logprobs": []}
                )
            part = self._items[-1]["content"][0]
            part["text"] += piece.text
            part["logprobs"] += logprobs
            yield self._item_event(
                "output_text.delta", content_index=0, delta=piece.text, logprobs=list(logprobs)
            )

    def _open_item(self, item: dict[str, Any]) -> Iterator[Event]:
        yield from self._close_item()
        self._items.append(item)
        self._is_open = True
        begun = {**item, "content": []} if item["type"] == "message" else dict(item)
        yield self._event("response.output_item.added", output_index=self._index, item=begun)

    def _close_item(self) -> Iterator[Event]:
        if not self._is_open:
            return
        self._is_open = False
        item = self._items[-1]
        item["status"] = "completed"
        if item["type"] == "message":
            part = item["content"][0]
            yield self._item_event(
                "output_text.done", content_index=0, text=part["text"], logprobs=part["logprobs"]
            )
            yield self._item_event("content_part.done", content_index=0, part=part)
        else:
            done = {"name": item["name"], "arguments": item["arguments"]}
            yield {**self._item_event("function_call_arguments.done"), **done}
        yield self._event("response.output_item.done", output_index=self._index, item=dict(item))

    @property
    def _index(self) -> int:
        return len(self._items) - 1

    def _item_event(self, name: str, **fields: Any) -> Event:
        item_id = self._items[-1]["id"]
        return self._event(f"response.{name}", item_id=item_id, output_index=self._index, **fields)

    def _event(self, name: str, **fields: Any) -> Event:
        event = {"type": name, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event

    # The whole ----------------------------------------------------------------------------------

    def full_response(self, choices: Sequence[AnswerChoice]) -> dict[str, Any]:
        """Return the response without streaming."""
        (answer,) = choices
        for chunk in answer.chunks:
            self._add(self._pieces.feed(chunk.text, chunk.token), self._logprobs([chunk]))
        self._add(self._pieces.end(answer.finish), [])
        return self._finished(answer.finish or "stop")

    def _add(self, pieces: Sequence[Piece], logprobs: Sequence[Any]) -> None:
        for piece in pieces:
            for _event in self._piece(piece, logprobs):
                pass  # the items are all that is needed
            logprobs = []

    def _finished(self, finish: str) -> dict[str, Any]:
        is_whole = finish == "stop"
        for item in self._items:
            item["status"] = "completed"
        if self._items and not is_whole:
            self._items[-1]["status"] = "incomplete"
        status = "completed" if is_whole else "incomplete"
        return self._response(status, output=self._items)

    def _response(self, status: str, **fields: Any) -> dict[str, Any]:
        is_cut = status == "incomplete"
        has_ended = status in ("completed", "incomplete")
        return {
            **self._head,
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": [],
            "background": False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": False,
            "truncation": "disabled",
            "usage": self._usage() if has_ended else None,
            **(self.request.repeated or {}),
            **fields,
        }

    def _usage(self) -> dict[str, Any]:
        usage = self.usage()
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }

    def _logprobs(self, chunks: Sequence[Chunk]) -> list[dict[str, Any]]:
        if self.request.top is None:
            return []
        return [self.entry(it, it.token) for it in chunks if it.token is not None]


def _message() -> dict[str, Any]:
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{secrets.token_hex(16)}",
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [part],
    }


def _call(name: str) -> dict[str, Any]:
    return {
        "id": f"fc_{secrets.token_hex(16)}",
        "type": "function_call",
        "call_id": call_id(),
        "name": name,
        "arguments": "",
        "status": "in_progress",
    }
