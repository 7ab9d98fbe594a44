"""Temperature: make the distribution flatter or sharper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row


COLDEST, HOTTEST = 1e-5, 1e5
"""Beyond these, float32 logits become infinite or all alike."""


def temperature(value: float = 0.6) -> LogitsProcessor:
    """Divide the logits.

    Args:
        value: 0.00001 to 100000; below 1 is sharper, above 1 flatter.
    Source: Ackley, Hinton and Sejnowski 1985, https://doi.org/10.1207/s15516709cog0901_7;
        ``TemperatureLogitsWarper`` of transformers.
    """
    if not COLDEST <= value <= HOTTEST:
        raise ValueError(
            f"value is {value}; it has to be above 0 (0.00001 to 100000); "
            "the sampler greedy always takes the most likely token"
        )

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        return logits / value

    return process


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``temperature``."""
    processors.register("temperature", temperature, help="divide the logits by a value")
