"""Mirostat, version 2: answers of an even surprise, whatever their length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.protocols import Row, Sampler, SamplerFactory
    from llamakit.registry import Registrar


def mirostat(tau: float = 5.0, eta: float = 0.1) -> Sampler:
    """Draw from the ids that surprise by at most mu bits, and steer mu towards ``tau``.

    The most likely id is always among them. Each row has a mu of its own; it begins at twice
    ``tau``. Like llama.cpp, what is observed is the surprise after the others are gone.

    Args:
        tau: the surprise that is wanted, in bits; above 0, at most 100. Lower is more certain.
        eta: how fast mu follows; above 0, at most 1.
    Source: Basu and others 2020, https://arxiv.org/abs/2007.14966; ``mirostat_v2`` of llama.cpp.
    """
    if not 0 < tau <= 100:
        raise ValueError(f"tau is {tau}; it has to be above 0 and at most 100")
    if not 0 < eta <= 1:
        raise ValueError(f"eta is {eta}; it has to be above 0 and at most 1")
    import torch

    from llamakit.sampling import draw_ids

    key = object()

    def sample(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B,)
        first = logits.new_full((), 2 * tau)
        mu = torch.stack([row.state.get(key, first) for row in rows])  # (B,)
        surprise = logits.log_softmax(dim=-1) / -math.log(2)
        kept = surprise <= mu.unsqueeze(-1)
        kept = kept.scatter(-1, logits.argmax(dim=-1, keepdim=True), True)
        probs = logits.masked_fill(~kept, -math.inf).softmax(dim=-1)
        ids = draw_ids(probs, rows)
        observed = -probs.gather(-1, ids.unsqueeze(-1)).squeeze(-1).log2()  # (B,)
        for row, following in zip(rows, mu - eta * (observed - tau), strict=True):
            row.state[key] = following
        return ids

    return sample


@hookimpl
def register_samplers(samplers: Registrar[SamplerFactory]) -> None:
    """Offer ``mirostat``."""
    samplers.register("mirostat", mirostat, help="a draw that keeps the surprise even")
