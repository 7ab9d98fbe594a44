"""Examples packed into windows: several strings side by side that cannot see each other."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from . import stories
from .dialogs import Dialog, DialogMaker
from .questions import Intent
from .tokenizer import Encoder

TOKENS_A_BATCH = 2048
SHORT, LONG = 256, 512
OPEN_WINDOWS = 24
QUESTION_WEIGHT = 0.2


@dataclass(frozen=True)
class Example:
    """Tokens, and for each how much it counts as something to be predicted (BOS never does)."""

    ids: list[int]
    weights: list[float]


@dataclass(frozen=True)
class Batch:
    """Windows of examples; all tensors are ``(B, T)`` but the mask, which is ``(B, 1, T, T)``."""

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    mask: Tensor


def completion(encoder: Encoder, text: str) -> Example:
    """Make an example of plain text: BOS, text, EOS."""
    ids = [encoder.bos, *encoder.text(text), encoder.eos]
    return Example(ids, [0.0] + [1.0] * (len(ids) - 1))


def conversation(encoder: Encoder, dialog: Dialog) -> Example:
    """Make an example of a dialog, in which mostly the answers count."""
    ids: list[int] = []
    weights: list[float] = []
    for exchange in dialog:
        pair = encoder.pair(exchange.user, exchange.assistant)
        asked = len(encoder.prompt(exchange.user))
        ids += pair
        weights += [0.0] + [QUESTION_WEIGHT] * (asked - 1) + [1.0] * (len(pair) - asked)
    return Example(ids, weights)


def examples(encoder: Encoder, intents: list[Intent], seed: int) -> Iterator[Example]:
    """Make examples without end: dialogs, stories, other short strings."""
    rng = random.Random(f"train {seed}")
    dialogs = DialogMaker(intents, rng, seed)
    essays = stories.essays()
    while True:
        kind = rng.random()
        if kind < 0.86:
            yield conversation(encoder, dialogs.dialog())
        elif kind < 0.95:
            yield completion(encoder, stories.story(rng))
        elif kind < 0.97:
            yield completion(encoder, stories.story_zh(rng))
        elif kind < 0.99:
            yield completion(encoder, stories.reflection(rng))
        else:
            yield completion(encoder, rng.choice(essays))


def batches(source: Iterator[Example]) -> Iterator[Batch]:
    """Pack examples into windows of two lengths, and windows into batches of equal size."""
    packers = {SHORT: Packer(SHORT), LONG: Packer(LONG)}
    for example in source:
        if len(example.ids) > LONG + 1:
            continue
        packer = packers[SHORT if len(example.ids) <= SHORT + 1 else LONG]
        full = packer.add(example)
        if full is not None:
            yield full


class Packer:
    """Collects windows of one length until there are enough for a batch."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.count = TOKENS_A_BATCH // length
        self.open: list[list[Example]] = []
        self.full: list[list[Example]] = []

    def add(self, example: Example) -> Batch | None:
        """Put an example into the fullest window where it fits; return a batch when one is full."""
        room = [w for w in self.open if self._used(w) + len(example.ids) <= self.length + 1]
        if room:
            max(room, key=self._used).append(example)
        else:
            self.open.append([example])
        if len(self.open) > OPEN_WINDOWS:
            fullest = max(self.open, key=self._used)
            self.open.remove(fullest)
            self.full.append(fullest)
        if len(self.full) < self.count:
            return None
        windows, self.full = self.full, []
        return stack(windows, self.length)

    @staticmethod
    def _used(window: list[Example]) -> int:
        return sum(len(example.ids) for example in window)


def stack(windows: list[list[Example]], length: int) -> Batch:
    """Make tensors of windows; what follows an example's last token is another example's BOS."""
    ids = torch.zeros(len(windows), length + 1, dtype=torch.long)
    weights = torch.zeros(len(windows), length + 1)
    owner = torch.full((len(windows), length + 1), -1)
    for row, window in enumerate(windows):
        start = 0
        for number, example in enumerate(window):
            end = start + len(example.ids)
            ids[row, start:end] = torch.tensor(example.ids)
            weights[row, start:end] = torch.tensor(example.weights)
            owner[row, start:end] = number
            start = end
    owner = owner[:, :-1]
    same = owner[:, :, None] == owner[:, None, :]  # (B, T, T)
    mask = same & torch.ones(length, length, dtype=torch.bool).tril()
    return Batch(ids[:, :-1], ids[:, 1:], weights[:, 1:], mask[:, None])
