"""Judges dialogs with a Llama Guard model: safe or unsafe, how likely, and why."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamakit.errors import UnsupportedModelError
from llamakit.printable import printable

if TYPE_CHECKING:
    from llamakit.llama.llama import Llama
    from llamakit.protocols import Dialog, Tokenizer

PROMPT_FORMAT = "llama-guard"
SAFE, UNSAFE = "safe", "unsafe"
ANSWER_TOKENS = 64
"""The longest answer, "unsafe" and 14 categories, is about 60 tokens."""


@dataclass(frozen=True)
class Moderation:
    """What a Llama Guard model says of the last message of a dialog.

    Args:
        score: the probability that the answer begins with "unsafe", 0 to 1.
        categories: the codes that the answer names, such as ``("S1", "S10")``.
        text: the whole answer.
    """

    score: float
    categories: tuple[str, ...]
    text: str


def moderate(
    llama: Llama, dialogs: Sequence[Dialog], prompt_format: str | None = None
) -> list[Moderation]:
    """Judge the last message of each dialog.

    Args:
        llama: a Llama Guard model.
        dialogs: of messages of user and assistant.
        prompt_format: ``llama-guard``, with options if need be, such as
            ``llama-guard:categories=13``; None is without.
    Raises:
        DialogError: a dialog is empty, or has a message of another role.
        PromptTooLongError: a dialog fills the context.
        UnsupportedModelError: an answer begins with neither "safe" nor "unsafe".
    Source: https://www.llama.com/docs/model-cards-and-prompt-formats/llama-guard-3/
    """
    return list(moderations(llama, dialogs, prompt_format))


def moderations(
    llama: Llama, dialogs: Sequence[Dialog], prompt_format: str | None
) -> Iterator[Moderation]:
    """Yield what ``moderate`` returns, as it is ready: ``llama.max_batch_size`` at a time."""
    guard = llama.prompt_format(prompt_format or PROMPT_FORMAT)
    prompts = [guard.encode(dialog) for dialog in dialogs]
    for number, prompt in enumerate(prompts, start=1):
        llama.check_prompt(prompt, number, len(prompts))
    for start in range(0, len(prompts), llama.max_batch_size):
        yield from _judge(llama, prompts[start : start + llama.max_batch_size])


def _judge(llama: Llama, prompts: Sequence[list[int]]) -> list[Moderation]:
    answers, _ = llama.generate(prompts, ANSWER_TOKENS, temperature=0)
    begun = [
        up_to_unsafe(llama.tokenizer, prompt, answer)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    _, logprobs = llama.generate(begun, 1, temperature=0, logprobs=True, echo=True)
    assert logprobs is not None
    return [
        verdict(llama.tokenizer, answer, scores[: len(tokens)])
        for answer, tokens, scores in zip(answers, begun, logprobs, strict=True)
    ]


def up_to_unsafe(tokenizer: Tokenizer, prompt: list[int], answer: Sequence[int]) -> list[int]:
    """Return the prompt, the blanks and line ends that the answer begins with, and "unsafe"."""
    count = 0
    while count < len(answer) and tokenizer.decode([answer[count]]).isspace():
        count += 1
    return [*prompt, *answer[:count], *tokenizer.encode(UNSAFE)]


def verdict(tokenizer: Tokenizer, answer: Sequence[int], logprobs: Sequence[float]) -> Moderation:
    """Return what an answer and the log-probabilities of ``up_to_unsafe`` say.

    Any Llama 3 gives "unsafe" some probability: only the answer tells a Llama Guard from others. It
    has room for both words, since the log-probabilities of the longer one are there.

    Raises:
        UnsupportedModelError: the answer begins with neither "safe" nor "unsafe".
    """
    text = tokenizer.decode(list(answer)).strip()
    if not re.match(rf"({SAFE}|{UNSAFE})\b", text):
        raise UnsupportedModelError(
            f"this model is no Llama Guard: it answered '{printable(text, 40)}' where '{SAFE}' or "
            f"'{UNSAFE}' was expected; use one such as Llama-Guard-3-8B"
        )
    length = len(tokenizer.encode(UNSAFE))
    return Moderation(math.exp(sum(logprobs[-length:])), categories_of(text), text)


def categories_of(text: str) -> tuple[str, ...]:
    """Return the codes that an answer names below "unsafe"."""
    first, _, rest = text.strip().partition("\n")
    return tuple(re.findall(r"\bS\d{1,2}\b", rest)) if first.strip() == UNSAFE else ()
