"""Seeds of prompts: the same call seed gives the same answers."""

from __future__ import annotations

import hashlib
import operator
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from llamakit.errors import OptionError
from llamakit.llama.number_checks import is_whole

LEAST, MOST = -(1 << 63), (1 << 64) - 1
"""What torch's generators take."""


def check_seed(value: Any) -> int:
    """Return a seed. Raises OptionError if it is no whole number of 64 bits."""
    if not is_whole(value) or not LEAST <= operator.index(value) <= MOST:
        raise OptionError(
            f"{value!r:.40} is no seed: expected a whole number of 64 bits, {LEAST} to {MOST}"
        )
    return operator.index(value)


class Seeds:
    """Derives the seed of every prompt of every call.

    A prompt's seed depends on the call's seed and on how often the same prompt came before it in
    the call. So other prompts change nothing, and a repeated prompt gets another answer.

    Args:
        seed: the seed from which those of calls without one are derived.
    """

    def __init__(self, seed: int) -> None:
        self._seed = check_seed(seed)
        self._calls = 0

    def of(self, prompts: Sequence[Sequence[Hashable]], seed: int | None) -> list[int]:
        """Return a seed for each prompt; None takes the next of the sequence for the call."""
        if seed is None:
            seed = derive(self._seed, self._calls)
            self._calls += 1
        return spread(check_seed(seed), prompts)


def spread(seed: int, prompts: Iterable[Sequence[Hashable]]) -> list[int]:
    """Return ``seed`` for each prompt, and seeds derived from it where a prompt is repeated."""
    seen: Counter[tuple[Hashable, ...]] = Counter()
    seeds = []
    for prompt in prompts:
        key = tuple(prompt)
        seeds.append(derive(seed, seen[key]) if seen[key] else seed)
        seen[key] += 1
    return seeds


def derive(seed: int, number: int) -> int:
    """Return the ``number``-th seed that follows from ``seed``: 63 bits, not negative."""
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
