"""Minimum length: an answer does not end before it has some tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row


def min_length(length: int = 16) -> LogitsProcessor:
    """Forbid the tokens that end an answer until it has ``length`` tokens.

    Stop strings end it all the same, and so does a grammar that allows nothing else.

    Args:
        length: in tokens of the answer, without the prompt's; 0 or more.
    Source: ``MinNewTokensLengthLogitsProcessor`` of transformers.
    """
    if length < 0:
        raise ValueError(f"length is {length}; it has to be 0 or more")
    from llamakit.sampling import keep_some

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        forbidden = [
            (index, token)
            for index, row in enumerate(rows)
            if len(row.tokens) - row.prompt_length < length
            for token in row.stop_tokens
            if token < logits.shape[-1]
        ]
        if not forbidden:
            return logits
        edited = logits.clone()
        for index, token in forbidden:  # a few: the device need not be waited for
            edited[index, token].fill_(-math.inf)
        return keep_some(edited, logits)

    return process


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``min-length``."""
    processors.register(
        "min-length",
        min_length,
        help="forbid the tokens that end an answer until it has some length",
    )
