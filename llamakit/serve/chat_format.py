"""Responses of ``/v1/chat/completions``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llamakit.llama.chunks import Chunk
from llamakit.serve.completion_request import CompletionRequest
from llamakit.serve.openai_format import AnswerChoice, ResponseFormat
from llamakit.serve.token_texts import TokenTexts
from llamakit.serve.tool_call_stream import (
    Piece,
    PlainStream,
    ToolCallStream,
    answer_pieces,
    call_id,
    whole_calls,
)


class ChatFormat(ResponseFormat):
    """The format of ``/v1/chat/completions``."""

    prefix, kind, stream_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, request: CompletionRequest, texts: TokenTexts, model: str) -> None:
        super().__init__(request, texts, model)
        self._begun: set[int] = set()
        self._streams: dict[int, ToolCallStream | PlainStream] = {}

    def stream_events(self, chunk: Chunk) -> list[dict[str, Any]]:
        """Return events for the role, the new text or parts of calls, and the end."""
        self.count(chunk)
        deltas: list[dict[str, Any]] = []
        if chunk.index not in self._begun:
            self._begun.add(chunk.index)
            deltas.append({"role": "assistant", "content": ""})
        stream = self._streams.setdefault(chunk.index, answer_pieces(self.request.tools))
        pieces = stream.feed(chunk.text, chunk.token)
        if chunk.finish:
            pieces += stream.end(chunk.finish)
        finish = stream.finish_reason(chunk.finish)
        deltas += map(self._piece, pieces)
        events = [self._delta(chunk.index, delta) for delta in deltas]
        logprobs = self._logprobs([chunk])
        if logprobs and logprobs["content"]:
            if not pieces:
                events.append(self._delta(chunk.index, {"content": ""}))
            events[-1]["choices"][0]["logprobs"] = logprobs
        if finish:
            events.append(self._delta(chunk.index, {}, finish=finish))
        return events

    def choice(self, index: int, answer: AnswerChoice) -> dict[str, Any]:
        """Return one entry of ``choices``."""
        message, finish = self._message(answer)
        return {
            "index": index,
            "message": {"role": "assistant", "refusal": None, **message},
            "logprobs": self._logprobs(answer.chunks),
            "finish_reason": finish,
        }

    def _message(self, answer: AnswerChoice) -> tuple[dict[str, Any], str | None]:
        """Return the content and the calls of a whole answer, and why it ended."""
        if self.request.tools is None:
            return {"content": answer.text}, answer.finish
        stream = ToolCallStream(self.request.tools)
        pieces = [it for chunk in answer.chunks for it in stream.feed(chunk.text, chunk.token)]
        pieces += stream.end(answer.finish)
        text = "".join(piece.text for piece in pieces if piece.kind == "text")
        message: dict[str, Any] = {"content": text or (None if stream.calls else "")}
        if calls := whole_calls(pieces):
            if self.request.tools.legacy:
                message["function_call"] = calls[0]
            else:
                message["tool_calls"] = [
                    {"id": call_id(), "type": "function", "function": call} for call in calls
                ]
        return message, stream.finish_reason(answer.finish)

    def _piece(self, piece: Piece) -> dict[str, Any]:
        """Return the delta for a piece of an answer."""
        if piece.kind == "text":
            return {"content": piece.text}
        function = {"name": piece.text, "arguments": ""}
        if piece.kind == "arguments":
            function = {"arguments": piece.text}
        assert self.request.tools is not None
        if self.request.tools.legacy:
            return {"function_call": function}
        call: dict[str, Any] = {"index": piece.index, "function": function}
        if piece.kind == "name":
            call = {"index": piece.index, "id": call_id(), "type": "function", "function": function}
        return {"tool_calls": [call]}

    def _delta(
        self, index: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None
    ) -> dict[str, Any]:
        return self.stream_event(
            {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        )

    def _logprobs(self, chunks: Sequence[Chunk]) -> dict[str, Any] | None:
        if self.request.top is None:
            return None
        content = [self.entry(chunk, chunk.token) for chunk in chunks if chunk.token is not None]
        return {"content": content, "refusal": None}
