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

    def __call__(
        self, logits: torch.Tensor, rows: Sequence[Row], seen: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return ``(B,)`` int64 ids for ``(B, V)`` float32 logits.

        Args:
            seen: ``(B, V)``; takes the logits whose probabilities are those of the ids: what the
                processors have left, or what the sampler makes of that, if it tells.
        """
        for process in self.processors:
            logits = process(logits, rows)
        if seen is not None:
            tell = getattr(self.sampler, "drawn_from", None)
            seen.copy_(logits if tell is None else tell(logits, rows))
        return self.sampler(logits, rows)


def sample(
    logits: torch.Tensor,
    rows: Sequence[Row],
    samplings: Sequence[Sampling],
    failures: dict[int, Exception] | None = None,
    seen: torch.Tensor | None = None,
) -> torch.Tensor:
    """Choose an id for every row, each by its own sampling.

    Args:
        logits: ``(B, V)`` float32.
        samplings: one for each row.
        failures: takes what a sampling raises, by row; those rows get the id 0. None raises it.
        seen: as of ``Sampling``.
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
                return sampling(logits, rows, seen)
            part = None if seen is None else logits[indexes]
            its_rows = [rows[index] for index in indexes]
            tokens[indexes] = sampling(logits[indexes], its_rows, part)
            if seen is not None and part is not None:
                seen[indexes] = part
        except Exception as error:
            if failures is None:
                raise
            failures.update(dict.fromkeys(indexes, error))
    return tokens
