"""Temperature: make the distribution flatter or sharper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row
    from llamakit.registry import Registrar


def temperature(value: float = 0.6) -> LogitsProcessor:
    """Divide the logits.

    Args:
        value: above 0; below 1 is sharper, above 1 flatter.
    """
    if not value > 0:
        raise ValueError(f"value is {value}; it has to be above 0 (or use the greedy sampler)")

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        return logits / value

    return process


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``temperature``."""
    processors.register("temperature", temperature, help="divide the logits by a value")
