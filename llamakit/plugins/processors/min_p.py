"""Min-p: choose among tokens that are not much less likely than the most likely."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row


def min_p(p: float = 0.05) -> LogitsProcessor:
    """Keep tokens with at least ``p`` times the probability of the most likely one.

    Args:
        p: 0 keeps all, 1 only the most likely.
    Source: Nguyen and others 2024, https://arxiv.org/abs/2407.01082; ``MinPLogitsWarper`` of
        transformers.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p}; it has to be between 0 and 1")

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        probs = logits.softmax(dim=-1)
        least = p * probs.amax(dim=-1, keepdim=True)  # (B, 1)
        return logits.masked_fill(probs < least, -math.inf)

    return process


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``min-p``."""
    processors.register(
        "min-p", min_p, help="keep tokens that have a share of the highest probability"
    )
