"""The reference's way to choose an id: temperature, top-p and a draw, in one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.protocols import Row, Sampler, SamplerFactory
    from llamakit.registry import Registrar


def top_p(temperature: float = 0.6, p: float = 0.9) -> Sampler:
    """Draw from the smallest set of likely ids whose mass reaches ``p``.

    Args:
        temperature: divides the logits; above 0. Lower is more certain.
        p: an id is kept while the mass of the likelier ones is at most this; 0 to 1.
    Source: ``sample_top_p`` in the reference's ``llama/generation.py``; Holtzman and others 2019,
        https://arxiv.org/abs/1904.09751
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it has to be above 0 (or use greedy)")
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p}; it has to be between 0 and 1")
    from llamakit.sampling import draw_ids

    def sample(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B,)
        probs, ids = (logits / temperature).softmax(dim=-1).sort(dim=-1, descending=True)
        before = probs.cumsum(dim=-1) - probs  # mass of the likelier ids
        probs = probs.masked_fill(before > p, 0.0)
        return ids.gather(-1, draw_ids(probs, rows).unsqueeze(-1)).squeeze(-1)

    return sample


@hookimpl
def register_samplers(samplers: Registrar[SamplerFactory]) -> None:
    """Offer ``top-p``."""
    samplers.register("top-p", top_p, help="temperature, top-p and a draw, as the reference does")
