"""What turns logits into ids: processors in order, then a sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamakit.protocols import LogitsProcessor, Row, Sampler

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Sampling:
    """How one request's ids are chosen. Rows with the same object are sampled together."""

    sampler: Sampler
    processors: tuple[LogitsProcessor, ...] = ()

    def __call__(self, logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """Return ``(B,)`` int64 ids for ``(B, V)`` float32 logits."""
        for process in self.processors:
            logits = process(logits, rows)
        return self.sampler(logits, rows)


def sample(
    logits: torch.Tensor,
    rows: Sequence[Row],
    samplings: Sequence[Sampling],
    failures: dict[int, Exception] | None = None,
) -> torch.Tensor:
    """Choose an id for every row, each by its own sampling.

    Args:
        logits: ``(B, V)`` float32.
        samplings: one for each row.
        failures: takes what a sampling raises, by row; those rows get the id 0. None raises it.
    Returns:
        ``(B,)`` int64, on the device of the logits: nothing here waits for a GPU.
    """
    import torch

    together: dict[Sampling, list[int]] = {}
    for index, sampling in enumerate(samplings):
        together.setdefault(sampling, []).append(index)
    tokens = logits.new_zeros(len(rows), dtype=torch.int64)
    for sampling, indexes in together.items():
        try:
            if len(together) == 1:
                return sampling(logits, rows)
            tokens[indexes] = sampling(logits[indexes], [rows[index] for index in indexes])
        except Exception as error:
            if failures is None:
                raise
            failures.update(dict.fromkeys(indexes, error))
    return tokens
