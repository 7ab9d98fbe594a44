"""Which waiting prompts are computed in one pass, by what they share with the cache."""

from __future__ import annotations

from collections.abc import Iterable

from llamakit.runtime.cache_slots import WORTH_COPYING, CacheSlots, shared_length
from llamakit.runtime.requests import RunningRow

FULL_ENOUGH, ALWAYS_FULL_ENOUGH = 0.75, 64
"""The share of a batch of prompts that has to be tokens, not padding, unless the batch has so few
positions that reading the weights takes most of the time."""


def choose_group(
    waiting: Iterable[RunningRow], free: int, cache: CacheSlots, chunk: int, *, overtakes: bool
) -> list[RunningRow]:
    """Choose waiting rows whose prompts are worth computing in one pass.

    Rows keep their order, but while a long prompt is being computed, short prompts overtake
    other long ones. A row that shares a long prefix with one of the group waits a step: the
    prefix can be copied then.

    Args:
        waiting: in their order.
        free: how many rows at most.
        chunk: how many tokens one pass may have.
        overtakes: a long prompt is being computed.
    """
    group: list[RunningRow] = []
    counts: list[int] = []
    for row in waiting:
        if is_long(row, cache, chunk):
            if not overtakes:
                break
            continue
        shared = shared_with_cache(row, cache)
        counts.append(len(row.tokens) - shared)
        in_group = max((shared_length(row.tokens, other.tokens) for other in group), default=0)
        in_group = min(in_group, row.reusable)
        if group and (not _fits(counts, chunk) or in_group >= shared + WORTH_COPYING):
            break
        group.append(row)
        if len(group) == free:
            break
    return group


def is_long(row: RunningRow, cache: CacheSlots, chunk: int) -> bool:
    """Return whether a prompt takes a pass of its own, or several."""
    return len(row.tokens) > chunk and len(row.tokens) - shared_with_cache(row, cache) > chunk


def shared_with_cache(row: RunningRow, cache: CacheSlots) -> int:
    """Return how many tokens of a prompt come from the cache; its last one never does."""
    return min(cache.shared(row.tokens), row.reusable)


def _fits(counts: list[int], chunk: int) -> bool:
    """Return whether prompts with so many tokens are worth computing in one pass."""
    padded = max(counts) * len(counts)
    full = padded <= ALWAYS_FULL_ENOUGH or sum(counts) >= FULL_ENOUGH * padded
    return padded <= chunk and full
