"""What an answer is made of while it is written, and which prompts can have one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamakit.errors import PromptError, PromptTooLongError

if TYPE_CHECKING:
    from llamakit.runtime.requests import Event, FinishReason, Scores, Top
    from llamakit.runtime.text_stream import TextStream


@dataclass(frozen=True)
class Chunk:
    """What one step adds to one answer.

    Args:
        index: which prompt.
        text: whole characters; may be empty while a character or a stop string is incomplete.
        token: the new id, or None when the answer only ends.
        logprob: of ``token``, before any processor, if asked for.
        finish: why the answer ended, or None while it goes on.
        prompt_logprobs: with a prompt's first chunk, if asked for.
        drafted: how many ids have been proposed for this answer so far.
        accepted: how many of those were right.
        top: the likeliest ids with their log-probabilities, if asked for.
        seen: both as they were left to the sampler, if asked for.
        prompt_top: with ``prompt_logprobs``, the likeliest ids in the place of each, if asked for.
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


def to_chunk(event: Event, text: TextStream, head: str = "") -> Chunk:
    """Turn an id, or an end, into what it adds to the text behind ``head``."""
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
    )


def check_prompt(
    prompt: Sequence[int], context: int, vocabulary: int, number: int = 1, count: int = 1
) -> None:
    """Refuse a prompt that cannot be answered.

    Args:
        context: how many ids the prompt and its answer may have.
        vocabulary: how many ids the model has.
        number: which prompt it is, from 1.
        count: how many there are.
    Raises:
        PromptTooLongError: it fills the context.
        PromptError: it has an id that the model has not.
    """
    which = f"prompt {number} of {count}" if count > 1 else "the prompt"
    if len(prompt) >= context:
        raise PromptTooLongError(
            f"{which} has {len(prompt)} ids and the context holds {context}, answer "
            "included: shorten it or raise --max-seq-len"
        )
    if max(prompt, default=0) >= vocabulary:
        raise PromptError(
            f"{which} has the id {max(prompt)}, and the model has {vocabulary}: its tokenizer "
            "files are another model's"
        )
