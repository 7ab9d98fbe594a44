"""No-repeat n-gram: no n tokens are in the same order twice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row


class Grams:
    """Which tokens have followed each run of ``n - 1`` tokens in one row."""

    def __init__(self, n: int, start: int) -> None:
        self._n = n
        self._start = start
        self._next = start + n - 1  # the position that ends the next n-gram
        self._followers: dict[tuple[int, ...], set[int]] = {}

    def repeating(self, tokens: Sequence[int]) -> set[int]:
        """Take in the tokens that are new, and return those that would repeat an n-gram."""
        run = self._n - 1
        for end in range(self._next, len(tokens)):
            before = tuple(tokens[end - run : end])
            self._followers.setdefault(before, set()).add(tokens[end])
        self._next = max(self._next, len(tokens))
        if len(tokens) - self._start < run:
            return set()
        return self._followers.get(tuple(tokens[len(tokens) - run :]), set())


def no_repeat_ngram(n: int = 3, prompt: bool = True) -> LogitsProcessor:
    """Forbid a token that would make the same ``n`` tokens in a row occur twice.

    Where that forbids all tokens that are left, the row stays as it is.

    Args:
        n: at least 1, which forbids every token that was there.
        prompt: whether what is in the prompt counts, as in transformers.
    Source: Paulus, Xiong and Socher 2017, https://arxiv.org/abs/1705.04304;
        ``NoRepeatNGramLogitsProcessor`` of transformers.
    """
    if n < 1:
        raise ValueError(f"n is {n}; it has to be at least 1")
    import torch

    from llamakit.sampling import keep_some

    key = object()

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        forbidden: list[tuple[int, int]] = []
        for index, row in enumerate(rows):
            if key not in row.state:
                row.state[key] = Grams(n, 0 if prompt else row.prompt_length)
            forbidden += [(index, token) for token in row.state[key].repeating(row.tokens)]
        if not forbidden:
            return logits
        places = torch.tensor(forbidden, device=logits.device).unbind(dim=-1)
        return keep_some(logits.index_put(places, logits.new_full((), -math.inf)), logits)

    return process


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``no-repeat-ngram``."""
    processors.register(
        "no-repeat-ngram", no_repeat_ngram, help="forbid tokens that would repeat n tokens in a row"
    )
