"""Top-n-sigma: choose among tokens whose logits stand out from the noise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row


def top_n_sigma(n: float = 1.0) -> LogitsProcessor:
    """Keep tokens whose logit is at most ``n`` standard deviations below the highest.

    What is kept does not depend on a temperature before it. The deviation is that of the whole
    population of finite logits, as in llama.cpp: what an earlier processor has taken away does
    not count.

    Args:
        n: above 0, at most 1000.
    Source: Tang and others 2024, https://arxiv.org/abs/2411.07641; ``top_n_sigma`` of llama.cpp.
    """
    if not 0 < n <= 1000:
        raise ValueError(f"n is {n}; it has to be above 0 and at most 1000")

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        gone = ~logits.isfinite()
        count = (~gone).sum(dim=-1, keepdim=True).clamp_min(1)
        mean = logits.masked_fill(gone, 0.0).sum(dim=-1, keepdim=True) / count
        squares = (logits - mean).square().masked_fill(gone, 0.0)
        sigma = (squares.sum(dim=-1, keepdim=True) / count).sqrt()
        least = logits.amax(dim=-1, keepdim=True) - n * sigma
        return logits.masked_fill(logits < least, -math.inf)

    return process


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``top-n-sigma``."""
    processors.register(
        "top-n-sigma", top_n_sigma, help="keep logits within n standard deviations of the highest"
    )
