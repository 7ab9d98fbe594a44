"""Helpers for the authors of samplers and processors: draw, count, keep.

Every draw comes from the row's own generator and what is counted is kept in the row's state, so a
row's answer does not depend on the batch around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from llamakit.protocols import Row


def draw_ids(
    probs: torch.Tensor, rows: Sequence[Row], *, vocabulary: int | None = None
) -> torch.Tensor:
    """Draw one token for each row from the row's own generator.

    Args:
        probs: ``(B, V)`` float32, not negative; rows need not sum to 1.
        rows: the B rows.
        vocabulary: on a CPU, ``probs`` are the first V of so many; the others are 0. The draw and
            the next ones are the same as with all of them.
    Returns:
        ``(B,)`` int64. A token of probability 0 is never drawn.
    Source: the exponential race: if E is exponential, argmax p/E is distributed as p.
    """
    import torch

    noise = torch.stack(
        [torch.empty_like(probs[0]).exponential_(generator=row.generator) for row in rows]
    )
    if vocabulary is not None and vocabulary > probs.shape[-1]:
        # A CPU's generator gives 64 bits for each number, of either kind. Integers cost a fifth.
        rest = torch.empty(vocabulary - probs.shape[-1], dtype=torch.int64)
        for row in rows:
            rest.random_(generator=row.generator)
    return (probs / noise).argmax(dim=-1)


def count_ids(
    logits: torch.Tensor, rows: Sequence[Row], *, prompt: bool, last: int = 0
) -> torch.Tensor:
    """Count how often each token occurs in each row.

    The counts stay on the device, in the row's state; a step adds only what is new.

    Args:
        logits: ``(B, V)``: they say how many tokens there are, and where the counts are wanted.
        rows: the B rows.
        prompt: count the prompt's tokens too, not only the answer's.
        last: count only this many of the latest tokens; 0 counts all.
    Returns:
        ``(B, V)`` float32.
    """
    import torch

    return torch.stack([_counts(logits[0], row, prompt, last) for row in rows])


def _counts(like: torch.Tensor, row: Row, prompt: bool, last: int) -> torch.Tensor:
    """Bring the counts of one row up to date; return ``(V,)`` float32, not to be written to."""
    import torch

    tokens, key = row.tokens, ("llamakit.count_ids", prompt, last)
    stop, first = len(tokens), 0 if prompt else row.prompt_length
    start = max(first, stop - last) if last else first
    if key not in row.state:
        row.state[key] = (start, start, like.new_zeros(like.shape))
    counts: torch.Tensor
    old_start, old_stop, counts = row.state[key]
    new = tokens[max(old_stop, start) : stop]
    if len(new) > 1:  # a prompt; one token is added without waiting for the device
        counts += torch.tensor(new, device=like.device).bincount(minlength=len(like))
    else:
        for token in new:
            counts[token] += 1
    for token in tokens[old_start : min(start, old_stop)]:
        counts[token] -= 1
    row.state[key] = (start, stop, counts)
    return counts


def keep_some(edited: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Return edited logits, but leave a row as it was that has no finite value otherwise.

    Args:
        edited: ``(B, V)``.
        logits: ``(B, V)``, from before.
    """
    return edited.where(edited.isfinite().any(dim=-1, keepdim=True), logits)
