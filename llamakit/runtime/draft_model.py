"""A small model that writes ahead for a large one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from llamakit.protocols import Tokenizer
from llamakit.runtime.cache_slots import CacheSlots
from llamakit.runtime.executor import Executor

CHUNK = 512
"""How many ids are computed at once where the model has to catch up."""
NARROW = 16
"""How many ids a row may be behind and still be computed with the others."""


class DraftModel:
    """Proposes what a small model would write, the likeliest id each time.

    Args:
        load: loads the model, when the first ids are asked for.
        tokenizer: its own; the large model has to have the same ids.
        most: how many ids are proposed.
        confidence: a draft ends before an id that the model thinks less probable.
        context: the longest sequence that the model was made for, in ids.
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
        """Return the ids that probably follow ``tokens``."""
        return self.batch([tokens])[0]

    def batch(self, sequences: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the ids that probably follow each of several sequences."""
        drafts: list[list[int]] = [[] for _ in sequences]
        fitting = [
            number
            for number, tokens in enumerate(sequences)
            if len(tokens) + self._most <= self._context
        ]
        if fitting:
            found = self._write([sequences[number] for number in fitting])
            for number, draft in zip(fitting, found, strict=True):
                drafts[number] = draft
        return drafts

    def _write(self, sequences: Sequence[Sequence[int]]) -> list[list[int]]:
        cache = self._room_for(sequences)
        logits = self._catch_up(cache, sequences)
        drafts: list[list[int]] = [[] for _ in sequences]
        going = set(range(len(sequences)))
        while True:
            ids, sure = _likeliest(logits)
            going = {number for number in going if sure[number] >= self._confidence}
            for number in going:
                drafts[number].append(ids[number])
            if not going or max(map(len, drafts)) == self._most:
                return drafts
            logits, _ = cache.forward(0, [[token] for token in ids])

    def _room_for(self, sequences: Sequence[Sequence[int]]) -> CacheSlots:
        needed = max(map(len, sequences)) + self._most + NARROW
        length = 1 << (needed - 1).bit_length()  # seldom a larger one: each is copied over
        if self._cache is None:
            self._cache = CacheSlots(self._load(), len(sequences), length)
        else:
            count = max(len(sequences), len(self._cache.held))
            self._cache.fit(count, max(length, self._cache.length))
        return self._cache

    def _catch_up(self, cache: CacheSlots, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Have the first slots hold the sequences; return the logits behind each."""
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
    """Return each row's likeliest id and its probability, read from the device at once."""
    probability, token = logits.softmax(-1).max(-1)
    ids, sure = torch.stack((token.float(), probability)).tolist()
    return [int(token) for token in ids], sure
