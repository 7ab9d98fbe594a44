"""Long work as a generator: it yields how far it is and returns its report."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from llamakit.protocols import Checkpoint, Tokenizer

Report = TypeVar("Report")


@dataclass(frozen=True)
class StepProgress:
    """How far the work is."""

    nbytes: int
    """Bytes that are done."""
    total: int
    """Bytes that there are to do."""


Steps = Generator[StepProgress, None, Report]


class Opener(Protocol):
    """Opens what is on disk, whatever its format: the toolkit."""

    def open_checkpoint(self, path: Path, /) -> Checkpoint:
        """Open a folder as a checkpoint."""
        ...

    def load_tokenizer(self, path: Path, /) -> Tokenizer:
        """Load a tokenizer file."""
        ...


def finish(
    steps: Steps[Report], progress: Callable[[StepProgress], object] | None = None
) -> Report:
    """Do all of the work and return its report.

    Args:
        progress: called at each step.
    """
    while True:
        try:
            step = next(steps)
        except StopIteration as done:
            report: Report = done.value
            return report
        if progress is not None:
            progress(step)


@contextlib.contextmanager
def warnings_of(logger: str = "llamakit") -> Iterator[list[str]]:
    """Collect what is logged as a warning meanwhile, instead of printing it."""
    collected: list[str] = []
    handler = _Collector(collected)
    logging.getLogger(logger).addHandler(handler)
    try:
        yield collected
    finally:
        logging.getLogger(logger).removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self, collected: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._collected = collected

    def emit(self, record: logging.LogRecord) -> None:
        self._collected.append(record.getMessage())
