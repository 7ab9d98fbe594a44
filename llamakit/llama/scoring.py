"""Scores strings by their log-likelihood under a model.

The numbers are those of lm-evaluation-harness 0.4.13: a string is encoded together with its context
and split where the context's tokens end, spaces at the end of the context belong to the string, and
an empty context is the token that a prompt begins with.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from llamakit.errors import PromptError, UsageError
from llamakit.llama.prompt_checks import check_prompt
from llamakit.llama.sampler_choice import choose_sampling
from llamakit.llama.score_items import ScoreItem
from llamakit.llama.score_windows import Window, windows
from llamakit.printable import printable

if TYPE_CHECKING:
    from llamakit.llama.llama import Llama

GROUP = 16
"""Items that are scored in one run of the scheduler."""


@dataclass(frozen=True)
class Score:
    """How likely a model finds a string.

    Args:
        logprob: natural logarithm of its probability after its context.
        tokens: how many tokens that is the sum of.
        greedy: whether each of them is the likeliest.
    """

    logprob: float
    tokens: int
    greedy: bool

    @property
    def perplexity(self) -> float:
        """The number of equally likely tokens that would be as hard to predict."""
        return perplexity(self.logprob, self.tokens)


@dataclass(frozen=True)
class ItemScore:
    """The scores of an item: one, or one for each choice."""

    item: ScoreItem
    scores: tuple[Score, ...]

    @property
    def best(self) -> int:
        """The likeliest choice."""
        return max(range(len(self.scores)), key=lambda index: self.scores[index].logprob)

    @property
    def best_per_character(self) -> int:
        """The likeliest choice by its log-probability divided by its characters."""
        lengths = [max(1, len(string)) for string in self.item.continuations]
        return max(
            range(len(lengths)), key=lambda index: self.scores[index].logprob / lengths[index]
        )


def perplexity(logprob: float, count: int) -> float:
    """Return e to the mean loss of a token, word or byte; infinity where a float cannot hold it."""
    try:
        return math.exp(-logprob / count) if count else math.nan
    except OverflowError:
        return math.inf


def score(
    llama: Llama, items: Iterable[ScoreItem], *, stride: int | None = None
) -> Iterator[ItemScore]:
    """Score items, in their order.

    What the context does not hold is scored in windows; a context that leaves no room for its
    string loses its beginning.

    Args:
        items: from ``text``, ``continuation`` and ``choices``; taken when their turn comes.
        stride: how many tokens a window after the first scores; None as many as the context holds.
    Raises:
        UsageError: a stride outside of 1 to ``llama.max_seq_len``.
        PromptError: a string without tokens, or with one outside of the model's vocabulary.
    """
    return score_numbered(llama, enumerate(items, start=1), stride=stride)


def score_numbered(
    llama: Llama, items: Iterable[tuple[int, ScoreItem]], *, stride: int | None = None
) -> Iterator[ItemScore]:
    """Score items as ``score``, each with the number that errors call it by."""
    context = llama.max_seq_len
    stride = context if stride is None else stride
    if not 1 <= stride <= context:
        raise UsageError(f"the stride is {stride}; it has to be 1 to {context}, the context")
    waiting = iter(items)
    while group := list(islice(waiting, GROUP)):
        yield from _score(llama, group, stride)


def _score(
    llama: Llama, items: Sequence[tuple[int, ScoreItem]], stride: int
) -> Iterator[ItemScore]:
    """Score some items, each with its number, in one run of the scheduler."""
    owners: list[tuple[int, int]] = []  # of each window: which item, which string
    parts: list[Window] = []
    for number, item in items:
        for which, string in enumerate(item.continuations):
            tokens, first = _encode(llama, number, item.context, string)
            for window in windows(tokens, first, llama.max_seq_len, stride):
                owners.append((number, which))
                parts.append(window)
    scores: dict[tuple[int, int], list[Score]] = {owner: [] for owner in owners}
    for index, found in score_windows(llama, parts):
        scores[owners[index]].append(found)
    for number, item in items:
        of_item = (scores[number, which] for which in range(len(item.continuations)))
        yield ItemScore(item, tuple(map(_total, of_item)))


def _encode(llama: Llama, number: int, context: str, string: str) -> tuple[list[int], int]:
    """Return the tokens of a context and a string, and which is the string's first.

    Raises:
        PromptError: the string has none, or the model lacks one of them.
    """
    head = context.rstrip()
    tokens = llama.tokenizer.encode(context + string, bos=True)
    first = max(1, len(llama.tokenizer.encode(head, bos=True)))
    if first >= len(tokens):
        raise PromptError(f"item {number}: {printable(string)!r:.60} adds no token to score")
    try:
        check_prompt(tokens, len(tokens) + 1, llama.checkpoint.params.vocab_size)
    except PromptError as error:
        raise PromptError(f"item {number}: {error}") from error
    return tokens, first


def _total(scores: Sequence[Score]) -> Score:
    """Add up the windows of a string."""
    return Score(
        math.fsum(it.logprob for it in scores),
        sum(it.tokens for it in scores),
        all(it.greedy for it in scores),
    )


def score_windows(llama: Llama, parts: Sequence[Window]) -> Iterator[tuple[int, Score]]:
    """Score the last tokens of some windows; yield each window's number and its score.

    The windows come in the order in which they are computed.
    """
    from llamakit.runtime.requests import Request

    greedy = choose_sampling(temperature=0, toolkit=llama.toolkit, tokenizer=llama.tokenizer)
    requests = [
        Request(
            tokens=window.tokens,
            limit=len(window.tokens),
            sampling=greedy,
            seed=0,
            prompt_logprobs=True,
            first_scored=window.first_scored,
            prompt_only=True,
            top=1,
        )
        for window in parts
    ]
    for event in llama.run(requests):
        window = parts[event.index]
        targets = window.tokens[window.first_scored :]
        logprobs = event.prompt_logprobs or ()
        likeliest = [top[0][0] for top in event.prompt_top]
        yield event.index, Score(math.fsum(logprobs), len(targets), likeliest == list(targets))
