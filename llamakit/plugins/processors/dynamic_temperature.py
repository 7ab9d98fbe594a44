"""Dynamic temperature: bold where many tokens are likely, careful where one is."""

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


def dynamic_temperature(
    low: float = 0.5, high: float = 1.5, exponent: float = 1.0
) -> LogitsProcessor:
    """Divide the logits by a temperature between ``low`` and ``high``, by their entropy.

    The temperature is ``low + (high - low) * (entropy / most) ** exponent``, where ``most`` is the
    entropy that as many tokens have when all are equally likely; those an earlier processor has
    taken away do not count.

    Args:
        low: the temperature where one token is certain; 0 to ``high``.
        high: the temperature where all are equally likely; at most 100000.
        exponent: above 1 keeps it low for longer; 0.01 to 100.
    Source: kalomaze, https://github.com/oobabooga/text-generation-webui/pull/5174; the temperature
        of each row as in ``temp_ext`` of llama.cpp.
    """
    if not 0 <= low <= high <= HOTTEST:
        raise ValueError(
            f"low is {low} and high is {high}; low has to be 0 or more, and high between it and "
            "100000"
        )
    if not 0.01 <= exponent <= 100:
        raise ValueError(f"exponent is {exponent}; it has to be between 0.01 and 100")
    import torch

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        entropy = torch.special.entr(logits.softmax(dim=-1)).sum(dim=-1, keepdim=True)
        count = logits.isfinite().sum(dim=-1, keepdim=True)
        most = count.clamp_min(
            2
        ).log()  # one token alone has no entropy, whatever that is divided by
        share = (entropy / most).clamp(0.0, 1.0)
        value: torch.Tensor = low + (high - low) * share.pow(exponent)
        return logits / value.clamp_min(COLDEST)

    return process


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``dynamic-temperature``."""
    processors.register(
        "dynamic-temperature", dynamic_temperature, help="a temperature that grows with the entropy"
    )
