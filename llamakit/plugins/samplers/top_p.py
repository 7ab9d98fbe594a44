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
FEW = 64
"""So many of the likeliest tokens are looked at first: the mass wanted is mostly theirs."""
ROUNDING = 1e-6
"""Above the error of a sum of probabilities."""


class TopP:
    """Draws from the smallest set of likely tokens whose mass reaches ``p``."""

    def __init__(self, temperature: float, p: float) -> None:
        self._temperature, self._p = temperature, p

    def __call__(self, logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """Return ``(B,)`` tokens for ``(B, V)`` logits."""
        probs = (logits / self._temperature).softmax(dim=-1)
        if probs.device.type != "cpu" or probs.shape[-1] <= FEW or self._p + ROUNDING >= 1:
            return self._draw(*probs.sort(dim=-1, descending=True, stable=True), rows)
        few, ids = _likeliest(probs)
        is_enough = self._is_enough(few)
        if all(is_enough):
            return self._draw(few, ids, rows, probs.shape[-1])
        if not any(is_enough):
            return self._draw(*probs.sort(dim=-1, descending=True, stable=True), rows)
        tokens = ids.new_empty(len(rows))
        for enough in set(is_enough):
            numbers = [number for number, it in enumerate(is_enough) if it == enough]
            sorted_probs, sorted_ids = (
                (few[numbers], ids[numbers])
                if enough
                else probs[numbers].sort(dim=-1, descending=True, stable=True)
            )
            its_rows = [rows[number] for number in numbers]
            tokens[numbers] = self._draw(sorted_probs, sorted_ids, its_rows, probs.shape[-1])
        return tokens

    def _draw(
        self,
        probs: torch.Tensor,
        ids: torch.Tensor,
        rows: Sequence[Row],
        vocabulary: int | None = None,
    ) -> torch.Tensor:
        """Draw from sorted probabilities of tokens, ``(B, V)`` both, or the first of them."""
        from llamakit.sampling import draw_ids

        probs = probs.masked_fill(_before(probs) > self._p, 0.0)
        drawn = draw_ids(probs, rows, vocabulary=vocabulary)
        return ids.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)

    def _is_enough(self, few: torch.Tensor) -> list[bool]:
        """Return of each row whether no token beyond the first few, ``(B, FEW)``, is kept.

        Of equals the first tokens are kept; so none that is kept may be as likely as the last.
        """
        before = _before(few)
        edge = (before <= self._p) & (few == few[:, -1:])
        enough: list[bool] = ((before[:, -1] > self._p + ROUNDING) & ~edge.any(dim=-1)).tolist()
        return enough

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
        dropped = _before(falling.softmax(dim=-1)) > p
        return logits.masked_fill(dropped.scatter(-1, tokens, dropped), -math.inf)

    return process


def _before(probs: torch.Tensor) -> torch.Tensor:
    """Return the mass of the likelier tokens, for each of some that are sorted."""
    return probs.cumsum(dim=-1) - probs


def _likeliest(probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first of the sorted probabilities, ``(B, FEW)``, and their tokens.

    Of equals the first token comes first, but which are left out at the end is not defined.
    """
    ids = probs.topk(FEW, sorted=False).indices.sort(dim=-1).values
    few, order = probs.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
    return few, ids.gather(-1, order)


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
