"""Answers as OpenAI's clients expect them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamakit.llama.chunks import Chunk
from llamakit.runtime.requests import Scores
from llamakit.serve.request_parser import Asked
from llamakit.serve.token_texts import TokenTexts

LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
SAMPLER_LISTS = ("sampler_token_logprobs", "sampler_top_logprobs")
"""What a completion tells of its ids, and llamakit's own beside that."""


@dataclass
class AnswerChoice:
    """One answer while it is put together."""

    text: str = ""
    chunks: list[Chunk] = field(default_factory=list)
    finish: str | None = None


class Shape:
    """Turns chunks into what a client gets: pieces of a stream, or one object."""

    prefix = ""
    kind = piece_kind = ""

    def __init__(self, asked: Asked, texts: TokenTexts, model: str) -> None:
        self.asked = asked
        self.texts = texts
        self.head = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }
        self.new_tokens = 0

    def pieces(self, chunk: Chunk) -> list[dict[str, Any]]:
        """Return what a stream says of a chunk: nothing, or one or more events."""
        raise NotImplementedError

    def choice(self, index: int, made: AnswerChoice) -> dict[str, Any]:
        """Return one entry of ``choices``."""
        raise NotImplementedError

    def whole(self, choices: Sequence[AnswerChoice]) -> dict[str, Any]:
        """Return the answer that is no stream."""
        return {
            **self.head,
            "object": self.kind,
            "choices": [self.choice(index, made) for index, made in enumerate(choices)],
            "usage": self.usage(),
        }

    def usage(self) -> dict[str, int]:
        """Count ids."""
        prompt = self.asked.prompt_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.new_tokens,
            "total_tokens": prompt + self.new_tokens,
        }

    def last(self) -> dict[str, Any]:
        """Return the last event of a stream that was asked for the usage."""
        return {**self.head, "object": self.piece_kind, "choices": [], "usage": self.usage()}

    def piece(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Return one event of a stream."""
        made = {**self.head, "object": self.piece_kind, "choices": [choice]}
        return {**made, "usage": None} if self.asked.include_usage else made

    def count(self, chunk: Chunk) -> None:
        """Note what a chunk adds."""
        self.new_tokens += chunk.token is not None and not self.asked.discard


class CompletionShape(Shape):
    """Of ``/v1/completions``."""

    prefix, kind, piece_kind = "cmpl", "text_completion", "text_completion"

    def __init__(self, asked: Asked, texts: TokenTexts, model: str) -> None:
        super().__init__(asked, texts, model)
        self._offsets = [0] * len(asked.requests)

    def pieces(self, chunk: Chunk) -> list[dict[str, Any]]:
        """Return one event for a chunk that says something."""
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
        return [self.piece(choice)]

    def choice(self, index: int, made: AnswerChoice) -> dict[str, Any]:
        """Return one entry of ``choices``."""
        return {
            "index": index,
            "text": made.text,
            "logprobs": self._logprobs(index, made.chunks),
            "finish_reason": made.finish,
        }

    def _logprobs(self, index: int, chunks: Sequence[Chunk]) -> dict[str, Any] | None:
        """Return lists with an entry for each id, the prompt's first with echo."""
        if self.asked.top is None:
            return None
        found: dict[str, list[Any]] = {name: [] for name in LISTS}
        if self.asked.seen:
            found |= {name: [] for name in SAMPLER_LISTS}
        for chunk in chunks:
            for token, model, sampler in self._ids(index, chunk):
                found["tokens"].append(self.texts.text(token))
                found["text_offset"].append(self._offsets[index])
                self._offsets[index] += self.texts.width(
                    token, at_start=self.asked.echo and not self._offsets[index]
                )
                self._score(found, "", model)
                if self.asked.seen:
                    self._score(found, "sampler_", sampler)
        return found

    def _score(self, found: dict[str, list[Any]], whose: str, scores: Scores | None) -> None:
        """Add how likely an id was, or null where nothing is known of it."""
        found[f"{whose}token_logprobs"].append(None if scores is None else scores.logprob)
        top = scores.top if scores else ()
        found[f"{whose}top_logprobs"].append(self._by_text(top) if top else None)

    def _by_text(self, top: Sequence[tuple[int, float]]) -> dict[str, float]:
        """Name ids by their text; of those with the same, the likeliest counts."""
        found: dict[str, float] = {}
        for token, score in top:
            found.setdefault(self.texts.text(token), score)
        return found

    def _ids(self, index: int, chunk: Chunk) -> Iterator[tuple[int, Scores | None, Scores | None]]:
        """Yield ids, what they were to the model and what to the sampler."""
        if chunk.prompt_logprobs is not None:
            prompt = self.asked.requests[index].tokens
            scored = zip(prompt, chunk.prompt_logprobs, chunk.prompt_top, strict=True)
            for position, (token, logprob, top) in enumerate(scored):
                # nothing stands before the first one, and no sampler has chosen any
                yield token, Scores(logprob, top) if position else None, None
        if chunk.token is not None and not self.asked.discard:
            yield chunk.token, Scores(chunk.logprob or 0.0, chunk.top), chunk.seen


class ChatShape(Shape):
    """Of ``/v1/chat/completions``."""

    prefix, kind, piece_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, asked: Asked, texts: TokenTexts, model: str) -> None:
        super().__init__(asked, texts, model)
        self._begun: set[int] = set()

    def pieces(self, chunk: Chunk) -> list[dict[str, Any]]:
        """Return the role first, then what is new, then the end."""
        self.count(chunk)
        found = []
        if chunk.index not in self._begun:
            self._begun.add(chunk.index)
            found.append(self._delta(chunk.index, {"role": "assistant", "content": ""}))
        logprobs = self._logprobs([chunk])
        if chunk.text or (logprobs and logprobs["content"]):
            found.append(self._delta(chunk.index, {"content": chunk.text}, logprobs))
        if chunk.finish:
            found.append(self._delta(chunk.index, {}, finish=chunk.finish))
        return found

    def choice(self, index: int, made: AnswerChoice) -> dict[str, Any]:
        """Return one entry of ``choices``."""
        return {
            "index": index,
            "message": {"role": "assistant", "content": made.text, "refusal": None},
            "logprobs": self._logprobs(made.chunks),
            "finish_reason": made.finish,
        }

    def _delta(
        self, index: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None
    ) -> dict[str, Any]:
        return self.piece(
            {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        )

    def _logprobs(self, chunks: Sequence[Chunk]) -> dict[str, Any] | None:
        if self.asked.top is None:
            return None
        content = [self._entry(chunk, chunk.token) for chunk in chunks if chunk.token is not None]
        return {"content": content, "refusal": None}

    def _entry(self, chunk: Chunk, token: int) -> dict[str, Any]:
        """Return what is said of one id."""
        made = {
            **self._scored(token, chunk.logprob or 0.0),
            "top_logprobs": [self._scored(*other) for other in chunk.top],
        }
        if chunk.seen is not None:
            made["sampler"] = {
                "logprob": chunk.seen.logprob,
                "top_logprobs": [self._scored(*other) for other in chunk.seen.top],
            }
        return made

    def _scored(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.texts.text(token)
        return {"token": text, "logprob": logprob, "bytes": self.texts.nbytes(token)}
