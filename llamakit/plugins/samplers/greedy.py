"""The most likely token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Row, Sampler, SamplerFactory


def greedy() -> Sampler:
    """Pick the most likely token; of equals, the first.

    Source: temperature 0 in the reference's ``llama/generation.py``.
    """

    def sample(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B,)
        return logits.argmax(dim=-1)

    return sample


@hookimpl
def register_samplers(samplers: Registrar[SamplerFactory]) -> None:
    """Offer ``greedy``."""
    samplers.register("greedy", greedy, help="the most likely token")
