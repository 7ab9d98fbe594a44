"""XTC, exclude top choices: now and then take away what everybody would say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row


def xtc(threshold: float = 0.1, probability: float = 0.5) -> LogitsProcessor:
    """Take away, with a probability, all tokens above a threshold but the least likely of them.

    Where a token that ends the answer would go, nothing goes: answers would not come to their end.
    The original spares the line end too, llama.cpp spares neither. Of equals, the first stays.

    Args:
        threshold: how likely a token has to be to count as a top choice; above 0, at most 0.5.
        probability: how often anything is taken away, decided again for each token; 0 to 1.
    Source: p-e-w, https://github.com/oobabooga/text-generation-webui/pull/6335
    """
    if not 0 < threshold <= 0.5:
        raise ValueError(
            f"threshold is {threshold}; it has to be above 0 and at most 0.5: no two tokens can be "
            "likelier than that"
        )
    if not 0 <= probability <= 1:
        raise ValueError(f"probability is {probability}; it has to be between 0 and 1")
    import torch

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        probs = logits.softmax(dim=-1)
        likely = probs >= threshold
        least = probs.masked_fill(~likely, 2.0).argmin(dim=-1, keepdim=True)  # (B, 1)
        dropped = likely.scatter(-1, least, False)
        chance = torch.cat(
            [torch.rand(1, generator=row.generator, device=logits.device) for row in rows]
        )
        acts = chance < probability  # (B,)
        for index, row in enumerate(rows):
            for token in row.stop_tokens:
                if token < logits.shape[-1]:
                    acts[index] &= ~dropped[index, token]
        return logits.masked_fill(dropped & acts.unsqueeze(-1), -math.inf)

    return process


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``xtc``."""
    processors.register("xtc", xtc, help="sometimes drop all likely tokens but the least of them")
