"""Rows for tests: what a sampler or a processor sees of a sequence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass
class KitRow:
    """A ``Row`` that no engine runs: a test appends to ``tokens`` itself."""

    tokens: list[int]
    prompt_length: int
    generator: torch.Generator
    stop_tokens: frozenset[int] = frozenset()
    state: dict[Any, Any] = field(default_factory=dict)


def make_rows(
    count: int = 4,
    *,
    seed: int = 0,
    tokens: Sequence[int] = (1, 5, 6, 7, 5, 6),
    prompt_length: int | None = None,
    stop_tokens: Collection[int] = (2,),
) -> list[KitRow]:
    """Make rows, each with a generator of its own.

    Args:
        count: how many.
        seed: of the first row's generator; each further row's is one higher.
        tokens: the tokens so far, the prompt's first; each row has its own copy.
        prompt_length: how many of them are the prompt's; all, if None.
        stop_tokens: those that end an answer.
    """
    import torch

    return [
        KitRow(
            list(tokens),
            len(tokens) if prompt_length is None else prompt_length,
            torch.Generator().manual_seed(seed + number),
            frozenset(stop_tokens),
        )
        for number in range(count)
    ]
