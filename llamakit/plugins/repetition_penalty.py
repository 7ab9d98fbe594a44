"""Repetition penalty: make ids that were there before less likely."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row
    from llamakit.registry import Registrar


def repetition_penalty(penalty: float = 1.1, prompt: bool = True, last: int = 0) -> LogitsProcessor:
    """Divide positive logits of ids that were there before, and multiply negative ones.

    Args:
        penalty: 1 changes nothing, more makes repeating less likely; 0.01 to 100.
        prompt: whether the prompt's ids count, as in transformers, or the answer's alone.
        last: how many of the latest ids count; 0 is all.
    Source: Keskar and others 2019, https://arxiv.org/abs/1909.05858;
        ``RepetitionPenaltyLogitsProcessor`` of transformers.
    """
    if not 0.01 <= penalty <= 100:
        raise ValueError(f"penalty is {penalty}; it has to be between 0.01 and 100")
    if last < 0:
        raise ValueError(f"last is {last}; it has to be 0 (all ids) or more")
    from llamakit.sampling import count_ids

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        seen = count_ids(logits, rows, prompt=prompt, last=last) > 0
        less = (logits * penalty).where(logits < 0, logits / penalty)
        return less.where(seen, logits)

    return process


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``repetition-penalty``."""
    processors.register(
        "repetition-penalty", repetition_penalty, help="make ids that were there before less likely"
    )
