"""Responses in the format of OpenAI's API."""

from __future__ import annotations

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamakit.llama.chunks import Chunk
from llamakit.runtime.requests import Scores
from llamakit.serve.api_errors import ApiError
from llamakit.serve.completion_request import CompletionRequest
from llamakit.serve.token_texts import TokenTexts

LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
SAMPLER_LISTS = ("sampler_token_logprobs", "sampler_top_logprobs")
"""The keys of a completion's ``logprobs``: OpenAI's, and llamakit's own."""


@dataclass
class AnswerChoice:
    """One entry of ``choices`` while it is collected."""

    text: str = ""
    chunks: list[Chunk] = field(default_factory=list)
    finish: str | None = None


class ResponseFormat(ABC):
    """Formats chunks for the client: as events of a stream, or as one object."""

    prefix = ""
    kind = stream_kind = ""
    has_choices = True
    done = b"data: [DONE]\n\n"
    """What ends a stream."""

    def __init__(self, request: CompletionRequest, texts: TokenTexts, model: str) -> None:
        self.request = request
        self.texts = texts
        self.head = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }
        self.new_tokens = 0

    @abstractmethod
    def stream_events(self, chunk: Chunk) -> list[dict[str, Any]]:
        """Return the events of a stream for a chunk: none, one or more."""

    def choice(self, index: int, answer: AnswerChoice) -> dict[str, Any]:
        """Return one entry of ``choices``, where the format has them."""
        raise NotImplementedError

    def full_response(self, choices: Sequence[AnswerChoice]) -> dict[str, Any]:
        """Return the response without streaming."""
        return {
            **self.head,
            "object": self.kind,
            "choices": [self.choice(index, answer) for index, answer in enumerate(choices)],
            "usage": self.usage(),
        }

    def usage(self) -> dict[str, int]:
        """Count tokens."""
        prompt = self.request.prompt_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.new_tokens,
            "total_tokens": prompt + self.new_tokens,
        }

    def usage_event(self) -> dict[str, Any] | None:
        """Return the last event of a stream, with ``include_usage``."""
        if not self.request.include_usage:
            return None
        return {**self.head, "object": self.stream_kind, "choices": [], "usage": self.usage()}

    def stream_event(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Return one event of a stream."""
        event = {**self.head, "object": self.stream_kind, "choices": [choice]}
        if self.request.continuous_usage:
            return {**event, "usage": self.usage()}
        return {**event, "usage": None} if self.request.include_usage else event

    def encoded(self, event: dict[str, Any]) -> bytes:
        """Return an event of a stream as it is sent."""
        return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"

    def error_event(self, error: ApiError) -> dict[str, Any]:
        """Return the event of a failure within a stream, after which nothing follows."""
        return error.body()

    def entry(self, chunk: Chunk, token: int) -> dict[str, Any]:
        """Return the log-probability of one token, as chats and responses show it."""
        entry = {
            **self._scored(token, chunk.logprob or 0.0),
            "top_logprobs": [self._scored(*other) for other in chunk.top],
        }
        if chunk.seen is not None:
            entry["sampler"] = {
                "logprob": chunk.seen.logprob,
                "top_logprobs": [self._scored(*other) for other in chunk.seen.top],
            }
        return entry

    def _scored(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.texts.text(token)
        return {"token": text, "logprob": logprob, "bytes": self.texts.nbytes(token)}

    def count(self, chunk: Chunk) -> None:
        """Count the token of a chunk."""
        self.new_tokens += chunk.token is not None


class CompletionFormat(ResponseFormat):
    """The format of ``/v1/completions``."""

    prefix, kind, stream_kind = "cmpl", "text_completion", "text_completion"

    def __init__(self, request: CompletionRequest, texts: TokenTexts, model: str) -> None:
        super().__init__(request, texts, model)
        self._offsets = [0] * len(request.choices)
        self._loses_space = request.echo or not request.keep_space

    def stream_events(self, chunk: Chunk) -> list[dict[str, Any]]:
        """Return one event for a chunk that is not empty."""
        self.count(chunk)
        logprobs = self._logprobs(chunk.index, [chunk])
        if not (chunk.text or chunk.finish or (logprobs and logprobs["tokens"])):
            return []
        choice = {
            "index": chunk.index,
            "text": chunk.text,
            "logprobs": logprobs,
            "finish_reason": chunk.finish,
        }
        return [self.stream_event(choice)]

    def choice(self, index: int, answer: AnswerChoice) -> dict[str, Any]:
        """Return one entry of ``choices``."""
        return {
            "index": index,
            "text": answer.text,
            "logprobs": self._logprobs(index, answer.chunks),
            "finish_reason": answer.finish,
        }

    def _logprobs(self, index: int, chunks: Sequence[Chunk]) -> dict[str, Any] | None:
        """Return lists with an entry for each token, the prompt's first with echo."""
        if self.request.top is None:
            return None
        lists: dict[str, list[Any]] = {name: [] for name in LISTS}
        if self.request.seen:
            lists |= {name: [] for name in SAMPLER_LISTS}
        for chunk in chunks:
            for token, model, sampler in self._ids(index, chunk):
                lists["tokens"].append(self.texts.text(token))
                lists["text_offset"].append(self._offsets[index])
                self._offsets[index] += self.texts.width(
                    token, at_start=self._loses_space and not self._offsets[index]
                )
                self._score(lists, "", model)
                if self.request.seen:
                    self._score(lists, "sampler_", sampler)
        return lists

    def _score(self, lists: dict[str, list[Any]], prefix: str, scores: Scores | None) -> None:
        """Append the scores of a token, or null if there are none."""
        lists[f"{prefix}token_logprobs"].append(None if scores is None else scores.logprob)
        top = scores.top if scores else ()
        lists[f"{prefix}top_logprobs"].append(self._by_text(top) if top else None)

    def _by_text(self, top: Sequence[tuple[int, float]]) -> dict[str, float]:
        """Map the tokens' texts to their scores; of equal texts, the likeliest counts."""
        scores: dict[str, float] = {}
        for token, score in top:
            scores.setdefault(self.texts.text(token), score)
        return scores

    def _ids(self, index: int, chunk: Chunk) -> Iterator[tuple[int, Scores | None, Scores | None]]:
        """Yield tokens with their scores before and after the processors."""
        if chunk.prompt_logprobs is not None:
            prompt = self.request.choices[index].tokens
            scored = zip(prompt, chunk.prompt_logprobs, chunk.prompt_top, strict=True)
            for position, (token, logprob, top) in enumerate(scored):
                # nothing comes before the first one, and no sampler has chosen any
                yield token, Scores(logprob, top) if position else None, None
        if chunk.token is not None:
            yield chunk.token, Scores(chunk.logprob or 0.0, chunk.top), chunk.seen
        if chunk.stop_token is not None:
            yield chunk.stop_token
