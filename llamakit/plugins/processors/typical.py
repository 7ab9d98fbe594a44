"""Locally typical sampling: choose among tokens that are as surprising as expected."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row


def typical(mass: float = 0.9) -> LogitsProcessor:
    """Keep the tokens whose surprise is nearest the entropy, until they make up ``mass``.

    The most likely token may go. Tokens as near as the last one that is kept stay too.

    Args:
        mass: above 0 and below 1.
    Source: Meister and others 2022, https://arxiv.org/abs/2202.00666; ``TypicalLogitsWarper`` of
        transformers.
    """
    if not 0 < mass < 1:
        raise ValueError(f"mass is {mass}; it has to be above 0 and below 1")

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        logprobs = logits.log_softmax(dim=-1)
        entropy = -(logprobs * logprobs.exp()).nansum(dim=-1, keepdim=True)  # (B, 1)
        distance = (-logprobs - entropy).abs()
        nearest, tokens = distance.sort(dim=-1, stable=True)
        gathered = logits.gather(-1, tokens).softmax(dim=-1).cumsum(dim=-1)
        last = (gathered < mass).sum(dim=-1, keepdim=True).clamp_max(logits.shape[-1] - 1)
        return logits.masked_fill(distance > nearest.gather(-1, last), -math.inf)

    return process


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``typical``."""
    processors.register("typical", typical, help="keep tokens whose surprise is near the entropy")
