"""Judges dialogs with a Llama Guard model: safe or unsafe, how likely, and why."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamakit.llama.llama import Llama
    from llamakit.protocols import Dialog

PROMPT_FORMAT = "llama-guard"
UNSAFE = "unsafe"
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
    Source: https://www.llama.com/docs/model-cards-and-prompt-formats/llama-guard-3/
    """
    prompt = llama.prompt_format(prompt_format or PROMPT_FORMAT)
    prompts = [prompt.encode(dialog) for dialog in dialogs]
    answers, _ = llama.generate(prompts, ANSWER_TOKENS, temperature=0)
    texts = [llama.tokenizer.decode(answer) for answer in answers]
    scores = _unsafe_probabilities(llama, prompts, answers)
    return [
        Moderation(score, categories_of(text), text.strip())
        for score, text in zip(scores, texts, strict=True)
    ]


def _unsafe_probabilities(
    llama: Llama, prompts: Sequence[list[int]], answers: Sequence[Sequence[int]]
) -> list[float]:
    """Return the probability of "unsafe" where each answer's first word is."""
    unsafe = llama.tokenizer.encode(UNSAFE)
    begun = [
        prompt + _leading_space(llama, answer)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    _, scores = llama.generate(
        [tokens + unsafe for tokens in begun], 1, temperature=0, logprobs=True, echo=True
    )
    assert scores is not None
    return [
        math.exp(sum(score[len(tokens) : len(tokens) + len(unsafe)]))
        for tokens, score in zip(begun, scores, strict=True)
    ]


def _leading_space(llama: Llama, answer: Sequence[int]) -> list[int]:
    """Return the tokens of line ends and blanks before an answer's first word."""
    count = 0
    while count < len(answer) and llama.tokenizer.decode([answer[count]]).isspace():
        count += 1
    return list(answer[:count])


def categories_of(text: str) -> tuple[str, ...]:
    """Return the codes that an answer names below "unsafe"."""
    verdict, _, rest = text.strip().partition("\n")
    return tuple(re.findall(r"\bS\d{1,2}\b", rest)) if verdict.strip() == UNSAFE else ()
