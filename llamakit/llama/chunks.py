"""Chunks of streamed answers, and how they are made of the events of the scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamakit.llama.tokenizer import Tokenizer
    from llamakit.runtime.requests import Event, FinishReason, Scores, StopToken, Top
    from llamakit.runtime.text_stream import TextStream


@dataclass(frozen=True)
class Chunk:
    """What one decoding step adds to one answer.

    Args:
        index: which prompt.
        text: complete characters; may be empty while a character or a stop string is incomplete.
        token: the new token, or None when the answer only ends.
        logprob: of ``token``, before any processor, if asked for.
        finish: why the answer ended, or None while it continues.
        prompt_logprobs: with a prompt's first chunk, if asked for.
        drafted: how many tokens have been drafted for this answer so far.
        accepted: how many of those were accepted.
        top: the likeliest tokens with their log-probabilities, if asked for.
        seen: both as the sampler saw them, after all processors, if asked for.
        prompt_top: with ``prompt_logprobs``, the likeliest tokens in the place of each, if asked
            for.
        observed: with an answer's last chunk, what the observers of its hidden states have found.
        stop_token: the one that ended the answer, its scores, and both as the sampler saw them, if
            asked for.
    """

    index: int
    text: str
    token: int | None
    logprob: float | None = None
    finish: FinishReason | None = None
    prompt_logprobs: tuple[float, ...] | None = None
    drafted: int = 0
    accepted: int = 0
    top: Top = ()
    seen: Scores | None = None
    prompt_top: tuple[Top, ...] = ()
    observed: tuple[Any, ...] = ()
    stop_token: StopToken | None = None


class ChunkMaker:
    """Makes the chunks of several answers, whose events come interleaved.

    Args:
        stop: strings that end an answer.
        echo: an answer's text begins with its prompt's.
        keep_space: a space at the start of an answer is part of it.
        has_observers: an answer that ends at a stop string has one more event, with what they
            have found.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str],
        *,
        echo: bool,
        keep_space: bool,
        has_observers: bool,
    ) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._echo, self._keep_space = echo, keep_space
        self._has_observers = has_observers
        self._unanswered: dict[int, Sequence[int]] = {}
        self._recording: Iterator[Sequence[int]] = iter(())
        self._recorded = 0
        self._texts: dict[int, TextStream] = {}
        self._stopped: dict[int, Chunk] = {}  # at a stop string; the observers' results follow

    def record(self, prompts: Iterable[Sequence[int]]) -> Iterator[Sequence[int]]:
        """Return an iterator of the prompts, which keeps each until its answer begins."""
        self._recording = self._record(prompts)
        return self._recording

    def _record(self, prompts: Iterable[Sequence[int]]) -> Iterator[Sequence[int]]:
        for self._recorded, prompt in enumerate(prompts, start=1):
            self._unanswered[self._recorded - 1] = prompt
            yield prompt

    def has_ended(self, index: int) -> bool:
        """Say whether an answer needs no more tokens."""
        return index not in self._texts

    def chunk(self, event: Event) -> Chunk | None:
        """Turn an event into a chunk; None while the observers' results are to come."""
        index = event.index
        while index >= self._recorded:  # under torchrun, the scheduler of rank 0 alone draws them
            next(self._recording)
        if index in self._stopped:
            return replace(self._stopped.pop(index), observed=observed_of(event))
        head = self._begin(index) if index in self._unanswered else ""
        chunk = to_chunk(event, self._texts[index], head)
        if chunk.finish:
            del self._texts[index]
        if chunk.finish and self._has_observers and not event.finish:
            self._stopped[index] = chunk
            return None
        return chunk

    def _begin(self, index: int) -> str:
        """Begin an answer; return the text of its prompt if that is part of it."""
        from llamakit.runtime.text_stream import TextStream

        prompt = self._unanswered.pop(index)
        self._texts[index] = TextStream(self._tokenizer, self._stop)
        text = self._texts[index].begin(prompt) if self._echo or self._keep_space else ""
        return text if self._echo else ""


def to_chunk(event: Event, text: TextStream, head: str = "") -> Chunk:
    """Turn an event of the scheduler into a chunk; its text begins with ``head``."""
    new = head if event.token is None else head + text.feed(event.token)
    finish = event.finish
    if text.stopped:
        finish = "stop"
    elif finish:
        new += text.finish()
    return Chunk(
        event.index,
        new,
        event.token,
        event.logprob,
        finish,
        event.prompt_logprobs,
        event.drafted,
        event.accepted,
        event.top,
        event.seen,
        event.prompt_top,
        observed_of(event),
        event.stop_token,
    )


def observed_of(event: Event) -> tuple[Any, ...]:
    """Return what observers have found, with lists where a message of ranks has made tuples."""
    return tuple(map(_with_lists, event.observed))


def _with_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_lists(it) for key, it in value.items()}
    return [_with_lists(it) for it in value] if isinstance(value, list | tuple) else value
