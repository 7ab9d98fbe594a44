"""A draft model for speculative decoding: a small model whose tokens a large one checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from llamakit.protocols import Tokenizer
from llamakit.runtime.cache_slots import CacheSlots
from llamakit.runtime.executor import Executor

CHUNK = 512
"""How many tokens are computed in one pass while the draft model catches up with the text."""
NARROW = 16
"""How many missing tokens a row may have and still be computed in the common batch."""


class DraftModel:
    """Drafts tokens with a small model, greedily.

    Args:
        load: loads the model; called when the first draft is wanted.
        tokenizer: its own; the large model has to have the same vocabulary.
        most: how many tokens a draft has at most.
        confidence: a draft ends before a token whose probability is lower.
        context: the longest sequence of the model, in tokens.
    """

    def __init__(
        self,
        load: Callable[[], Executor],
        tokenizer: Tokenizer,
        most: int,
        confidence: float,
        context: int,
    ) -> None:
        self.tokenizer = tokenizer
        self._load = load
        self._most, self._confidence, self._context = most, confidence, context
        self._cache: CacheSlots | None = None

    def __call__(self, tokens: Sequence[int]) -> list[int]:
        """Return the tokens that probably follow ``tokens``."""
        return self.batch([tokens])[0]

    def batch(self, sequences: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the tokens that probably follow each of several sequences."""
        drafts: list[list[int]] = [[] for _ in sequences]
        fitting = [
            number
            for number, tokens in enumerate(sequences)
            if len(tokens) + self._most <= self._context
        ]
        if fitting:
            fitting_drafts = self._draft([sequences[number] for number in fitting])
            for number, draft in zip(fitting, fitting_drafts, strict=True):
                drafts[number] = draft
        return drafts

    def _draft(self, sequences: Sequence[Sequence[int]]) -> list[list[int]]:
        cache = self._cache_for(sequences)
        logits = self._catch_up(cache, sequences)
        drafts: list[list[int]] = [[] for _ in sequences]
        open_rows = set(range(len(sequences)))
        while True:
            tokens, probabilities = _likeliest(logits)
            open_rows = {
                number for number in open_rows if probabilities[number] >= self._confidence
            }
            for number in open_rows:
                drafts[number].append(tokens[number])
            if not open_rows or max(map(len, drafts)) == self._most:
                return drafts
            logits, _ = cache.forward(0, [[token] for token in tokens])

    def _cache_for(self, sequences: Sequence[Sequence[int]]) -> CacheSlots:
        needed = max(map(len, sequences)) + self._most + NARROW
        length = 1 << (needed - 1).bit_length()  # powers of two: growing copies the cache
        if self._cache is None:
            self._cache = CacheSlots(self._load(), len(sequences), length)
        else:
            count = max(len(sequences), len(self._cache.held))
            self._cache.fit(count, max(length, self._cache.length), sequences)
        return self._cache

    def _catch_up(self, cache: CacheSlots, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Bring the sequences into the first slots; return the logits that follow each."""
        for slot, tokens in enumerate(sequences):
            source, shared = cache.best(tokens, slot, start=slot)
            cache.swap(source, slot)
            cache.truncate(slot, min(shared, len(tokens) - 1))
            while (behind := len(tokens) - len(cache.held[slot])) > NARROW:
                done = len(cache.held[slot])
                cache.forward(slot, [tokens[done : done + min(CHUNK, behind - 1)]])
        rest = [tokens[len(cache.held[slot]) :] for slot, tokens in enumerate(sequences)]
        return cache.forward(0, rest)[0]


def _likeliest(logits: torch.Tensor) -> tuple[list[int], list[float]]:
    """Return each row's likeliest token and its probability, read from the device at once."""
    probability, token = logits.softmax(-1).max(-1)
    tokens, probabilities = torch.stack((token.float(), probability)).tolist()
    return [int(token) for token in tokens], probabilities
