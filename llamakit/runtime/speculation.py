"""Drafts for speculative decoding, truncated to what one pass can check."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, takewhile

from llamakit.protocols import Drafter
from llamakit.runtime.requests import RunningRow

LONGEST_DRAFT = 64
"""How many tokens of one draft are checked: their logits are all in memory at once."""


def next_draft_length(accepted: int) -> int:
    """Return how long a row's next draft may be: short after wrong ones, since those cost time.

    Args:
        accepted: how many tokens of the last draft were accepted.
    """
    return min(LONGEST_DRAFT, 2 * accepted + 1)


def collect_drafts(rows: Sequence[RunningRow], length: int, vocabulary: int) -> list[list[int]]:
    """Collect the draft of each row from its drafter.

    Args:
        length: how many tokens a slot of the cache holds.
        vocabulary: the size of the model's vocabulary; a token outside of it ends a draft.
    Returns:
        For each row the tokens to check; none if it has no drafter or its slot is full.
    """
    room = min(
        LONGEST_DRAFT, length - max(len(row.tokens) for row in rows)
    )  # rows are padded alike
    drafts: list[list[int]] = [[] for _ in rows]
    together: dict[Drafter, list[int]] = {}
    for number, row in enumerate(rows):
        drafter = None if row.request.observers else row.request.drafter
        if drafter is not None and _draft_room(row, room) > 0:
            together.setdefault(drafter, []).append(number)
    for drafter, numbers in together.items():
        collected = _call_drafter(drafter, [rows[number].tokens for number in numbers])
        for number, draft in zip(numbers, collected, strict=True):
            known = takewhile(lambda token: 0 <= token < vocabulary, map(int, draft))
            drafts[number] = list(islice(known, _draft_room(rows[number], room)))
            rows[number].drafted += len(drafts[number])
    return drafts


def _draft_room(row: RunningRow, room: int) -> int:
    """Return how many draft tokens of a row can be checked: one more follows them."""
    return min(room, row.draft_length, row.request.limit - len(row.tokens) - 1)


def _call_drafter(drafter: Drafter, sequences: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    """Draft for all rows at once if the drafter can, else one by one."""
    batch = getattr(drafter, "batch", None)
    if batch is not None:
        drafts: Sequence[Sequence[int]] = batch(sequences)
        return drafts
    return [drafter(tokens) for tokens in sequences]
