"""Top-k: choose among the k most likely tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row


def top_k(k: int = 40) -> LogitsProcessor:
    """Keep the ``k`` most likely tokens, and those that are as likely as the last of them.

    Args:
        k: at least 1.
    Source: Fan, Lewis and Dauphin 2018, https://arxiv.org/abs/1805.04833; ``TopKLogitsWarper`` of
        transformers, which keeps equals too.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it has to be at least 1")

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        least = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]  # (B, 1)
        return logits.masked_fill(logits < least, -math.inf)

    return process


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``top-k``."""
    processors.register("top-k", top_k, help="keep the k most likely tokens")
