"""The sampling pipeline: logits processors in order, then a sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamakit.protocols import LogitsProcessor, Row, Sampler

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Sampling:
    """The processors and the sampler of a request. Rows that share one are sampled together."""

    sampler: Sampler
    processors: tuple[LogitsProcessor, ...] = ()

    @property
    def is_constrained(self) -> bool:
        """Whether a processor holds the answer to a grammar.

        Such an answer is decoded from its own tokens alone: that text is what was matched, and it
        lacks the space that a SentencePiece token may begin with.
        """
        return any(getattr(it, "is_constraint", False) for it in self.processors)

    def __call__(
        self, logits: torch.Tensor, rows: Sequence[Row], seen: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return ``(B,)`` int64 tokens for ``(B, V)`` float32 logits.

        Args:
            seen: ``(B, V)``, filled with the logits that the tokens are drawn from: the output of
                the processors, or what the sampler makes of it if it has ``drawn_from``.
        """
        for process in self.processors:
            logits = process(logits, rows)
        if seen is not None:
            drawn_from = getattr(self.sampler, "drawn_from", None)
            seen.copy_(logits if drawn_from is None else drawn_from(logits, rows))
        return self.sampler(logits, rows)


def sample(
    logits: torch.Tensor,
    rows: Sequence[Row],
    samplings: Sequence[Sampling],
    failures: dict[int, Exception] | None = None,
    seen: torch.Tensor | None = None,
) -> torch.Tensor:
    """Choose a token for every row, each by its own sampling.

    Args:
        logits: ``(B, V)`` float32.
        samplings: one for each row.
        failures: filled with the exceptions of samplings, by row; those rows get token 0. None:
            the first exception is raised.
        seen: as for ``Sampling``.
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
