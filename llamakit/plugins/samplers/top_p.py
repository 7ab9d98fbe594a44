"""Top-p: the reference's way to choose a token, and the mask alone as a processor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import (
        LogitsProcessor,
        LogitsProcessorFactory,
        Row,
        Sampler,
        SamplerFactory,
    )

COLDEST, HOTTEST = 1e-5, 1e5
"""Beyond these, float32 logits become infinite or all alike."""


class TopP:
    """Draws from the smallest set of likely tokens whose mass reaches ``p``."""

    def __init__(self, temperature: float, p: float) -> None:
        self._temperature, self._p = temperature, p

    def __call__(self, logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """Return ``(B,)`` tokens for ``(B, V)`` logits."""
        from llamakit.sampling import draw_ids

        probs = (logits / self._temperature).softmax(dim=-1)
        probs, tokens = probs.sort(dim=-1, descending=True, stable=True)
        before = probs.cumsum(dim=-1) - probs  # mass of the likelier tokens
        probs = probs.masked_fill(before > self._p, 0.0)
        return tokens.gather(-1, draw_ids(probs, rows).unsqueeze(-1)).squeeze(-1)

    def drawn_from(self, logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """Return the ``(B, V)`` logits of the set, for those who look at probabilities."""
        return keep_top_p(self._p)(logits / self._temperature, rows)


def top_p(temperature: float = 0.6, p: float = 0.9) -> Sampler:
    """Draw from the smallest set of likely tokens whose mass reaches ``p``.

    Args:
        temperature: divides the logits; 0.00001 to 100000. Lower is more certain.
        p: a token is kept while the mass of the likelier ones is at most this; 0 to 1.
    Source: ``sample_top_p`` in the reference's ``llama/generation.py``; Holtzman and others 2019,
        https://arxiv.org/abs/1904.09751
    """
    if not COLDEST <= temperature <= HOTTEST:
        raise ValueError(
            f"temperature is {temperature}; it has to be above 0 (0.00001 to 100000); "
            "0 itself, or the sampler greedy, always takes the most likely token"
        )
    _check(p)
    return TopP(temperature, p)


def keep_top_p(p: float = 0.9) -> LogitsProcessor:
    """Keep the smallest set of likely tokens whose mass reaches ``p``.

    A token stays while the mass of the likelier ones is at most ``p``, as in the sampler of this
    name (``TopPLogitsWarper`` of transformers wants it to be below). Of equals at the edge the
    first tokens stay; transformers keeps as many, but not always the same ones.

    Args:
        p: 0 keeps the most likely token alone, 1 keeps all.
    Source: as the sampler ``top-p``.
    """
    _check(p)

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        if p == 1:
            return logits  # rounding would take away the least likely
        falling, tokens = logits.sort(dim=-1, descending=True, stable=True)
        probs = falling.softmax(dim=-1)
        before = probs.cumsum(dim=-1) - probs  # mass of the likelier tokens
        dropped = before > p
        return logits.masked_fill(dropped.scatter(-1, tokens, dropped), -math.inf)

    return process


def _check(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p}; it has to be between 0 and 1")


@hookimpl
def register_samplers(samplers: Registrar[SamplerFactory]) -> None:
    """Offer the sampler ``top-p``."""
    samplers.register("top-p", top_p, help="temperature, top-p and a draw, as the reference does")


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer the processor ``top-p``."""
    processors.register("top-p", keep_top_p, help="keep the likely tokens that make up a mass")
