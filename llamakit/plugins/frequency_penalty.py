"""Frequency penalty: the more often an id was there, the less likely it becomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row
    from llamakit.registry import Registrar


def frequency_penalty(penalty: float = 0.5, prompt: bool = False, last: int = 0) -> LogitsProcessor:
    """Subtract ``penalty`` from a logit for each time that the id was there.

    Args:
        penalty: -2 to 2; below 0 makes repeating likelier.
        prompt: whether the prompt's ids count too; with OpenAI only the answer's do.
        last: how many of the latest ids count; 0 is all.
    Source: OpenAI, https://platform.openai.com/docs/api-reference/completions/create
    """
    if not -2 <= penalty <= 2:
        raise ValueError(f"penalty is {penalty}; it has to be between -2 and 2")
    if last < 0:
        raise ValueError(f"last is {last}; it has to be 0 (all ids) or more")
    from llamakit.sampling import count_ids

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        counts = count_ids(logits, rows, prompt=prompt, last=last)
        return logits - penalty * counts

    return process


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``frequency-penalty``."""
    processors.register(
        "frequency-penalty",
        frequency_penalty,
        help="subtract a penalty for each time that an id was there",
    )
