"""What drafters propose, cut to what can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, takewhile

from llamakit.protocols import Drafter
from llamakit.runtime.requests import RunningRow

MOST = 64
"""How many ids of one draft are looked at: their logits are held all at once."""


def propose(rows: Sequence[RunningRow], length: int, vocabulary: int) -> list[list[int]]:
    """Ask each row's drafter for ids.

    Args:
        length: how many ids a slot of the cache holds.
        vocabulary: how many ids the model knows; the first that it does not ends a draft.
    Returns:
        For each row the ids to check, none where it has no drafter or no room.
    """
    room = min(MOST, length - max(len(row.tokens) for row in rows))  # rows are padded alike
    drafts: list[list[int]] = [[] for _ in rows]
    together: dict[Drafter, list[int]] = {}
    for number, row in enumerate(rows):
        if row.request.drafter is not None and _room(row, room) > 0:
            together.setdefault(row.request.drafter, []).append(number)
    for drafter, numbers in together.items():
        found = _ask(drafter, [rows[number].tokens for number in numbers])
        for number, draft in zip(numbers, found, strict=True):
            known = takewhile(lambda token: 0 <= token < vocabulary, map(int, draft))
            drafts[number] = list(islice(known, _room(rows[number], room)))
            rows[number].drafted += len(drafts[number])
    return drafts


def _room(row: RunningRow, room: int) -> int:
    """How many ids of a row can be accepted: one more is written behind them."""
    return min(room, row.request.limit - len(row.tokens) - 1)


def _ask(drafter: Drafter, sequences: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    """Ask for all rows at once where the drafter can."""
    batch = getattr(drafter, "batch", None)
    if batch is not None:
        found: Sequence[Sequence[int]] = batch(sequences)
        return found
    return [drafter(tokens) for tokens in sequences]
