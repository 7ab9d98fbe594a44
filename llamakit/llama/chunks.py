"""Chunks of a streamed answer, and the check of prompts before generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llamakit.errors import PromptError, PromptTooLongError

if TYPE_CHECKING:
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


def check_prompt(
    prompt: Sequence[int], context: int, vocabulary: int, number: int = 1, count: int = 1
) -> None:
    """Refuse a prompt that cannot be answered.

    Args:
        context: how many tokens the prompt and its answer may have.
        vocabulary: how many tokens the model has.
        number: which prompt it is, from 1.
        count: how many there are.
    Raises:
        PromptTooLongError: it fills the context.
        PromptError: it has a token outside of the model's vocabulary.
    """
    which = f"prompt {number} of {count}" if count > 1 else "the prompt"
    if len(prompt) >= context:
        raise PromptTooLongError(
            f"{which} has {len(prompt)} tokens and the context holds {context}, answer "
            "included: shorten it or raise --max-seq-len"
        )
    if max(prompt, default=0) >= vocabulary:
        raise PromptError(
            f"{which} has the token ID {max(prompt)}, and the model has {vocabulary} tokens: its "
            "tokenizer files are another model's"
        )
