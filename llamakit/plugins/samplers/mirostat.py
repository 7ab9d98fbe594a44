"""Mirostat, version 2: answers of an even surprise, whatever their length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Row, Sampler, SamplerFactory


class Mirostat:
    """Draws from the tokens that surprise by at most mu bits, and steers mu."""

    def __init__(self, tau: float, eta: float) -> None:
        self._tau, self._eta = tau, eta

    def __call__(self, logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """Return ``(B,)`` tokens for ``(B, V)`` logits."""
        from llamakit.sampling import draw_ids

        mu = self._mu(logits, rows)
        probs = self.drawn_from(logits, rows).softmax(dim=-1)
        tokens = draw_ids(probs, rows)
        observed = -probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).log2()  # (B,)
        for row, following in zip(rows, mu - self._eta * (observed - self._tau), strict=True):
            row.state[self] = following
        return tokens

    def drawn_from(self, logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """Return the ``(B, V)`` logits without the tokens that surprise too much."""
        surprise = logits.log_softmax(dim=-1) / -math.log(2)
        kept = surprise <= self._mu(logits, rows).unsqueeze(-1)
        kept = kept.scatter(-1, logits.argmax(dim=-1, keepdim=True), True)
        return logits.masked_fill(~kept, -math.inf)

    def _mu(self, logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B,)
        import torch

        first = logits.new_full((), 2 * self._tau)
        return torch.stack([row.state.get(self, first) for row in rows])


def mirostat(tau: float = 5.0, eta: float = 0.1) -> Sampler:
    """Draw from the tokens that surprise by at most mu bits, and steer mu towards ``tau``.

    The most likely token is always among them. Each row has a mu of its own; it begins at twice
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
    return Mirostat(tau, eta)


@hookimpl
def register_samplers(samplers: Registrar[SamplerFactory]) -> None:
    """Offer ``mirostat``."""
    samplers.register("mirostat", mirostat, help="a draw that keeps the surprise even")
