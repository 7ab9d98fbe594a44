"""A token drawn from the whole distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Row, Sampler, SamplerFactory


def draw() -> Sampler:
    """Draw a token with the probability that the processors have left it.

    Source: the reference's ``sample_top_p`` with p = 1; ``do_sample`` of transformers.
    """
    from llamakit.sampling import draw_ids

    def sample(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B,)
        return draw_ids(logits.softmax(dim=-1), rows)

    return sample


@hookimpl
def register_samplers(samplers: Registrar[SamplerFactory]) -> None:
    """Offer ``draw``."""
    samplers.register("draw", draw, help="a token drawn with its probability")
