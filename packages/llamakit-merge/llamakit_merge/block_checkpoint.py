"""A checkpoint whose values are on no disk: they are computed as they are read, in blocks."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from llamakit.checkpoint.params import ModelParams
from llamakit.protocols import Checkpoint, Parameter
from llamakit_merge.rounding import Array

BLOCK_VALUES = 1 << 16
"""Values computed at a time: a few arrays of 256 KB, in each thread that reads."""

_THREADS, _TEMPORARIES = 4, 4
"""Conversions read in four threads; each has float32 blocks of every model, read and rounded."""


def row_blocks(shape: Sequence[int], start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Split rows ``start:stop`` into blocks of about ``BLOCK_VALUES`` values, at least a row."""
    row = max(1, int(np.prod(shape[1:], dtype=np.int64)))
    step = max(1, BLOCK_VALUES // row)
    for at in range(start, stop, step):
        yield at, min(at + step, stop)


def nbytes_of(parameter: Parameter) -> int:
    """Return how many bytes a parameter is stored in."""
    return parameter.numel * np.dtype(parameter.dtype).itemsize


class BlockCheckpoint(ABC):
    """A checkpoint made of others. What it is made of says ``compute``.

    Args:
        form: what it is called.
        base: the checkpoint whose folder has the tokenizer and the other small files.
        params: the numbers of the result.
        parameters: of the result, by Meta's name.
        sources: all checkpoints that are read.
        reads: what else is read, such as adapters.
    """

    def __init__(
        self,
        form: str,
        base: Checkpoint,
        params: ModelParams,
        parameters: Mapping[str, Parameter],
        sources: Sequence[Checkpoint],
        reads: Sequence[Path] = (),
    ) -> None:
        self.form = form
        self.path: Path = base.path
        self.params = params
        self.parameters = parameters
        self.sources = tuple(sources)
        self.reads = tuple(reads)
        self.nbytes_read = 0
        self._lock = threading.Lock()

    @abstractmethod
    def compute(self, name: str, start: int, stop: int) -> Array:
        """Return rows ``start:stop`` of a parameter, of any floating-point dtype."""

    def unchanged(self, name: str) -> Checkpoint | None:  # noqa: ARG002 - of derived classes
        """Return the source that has a parameter as it is in the result, under the same name."""
        return None

    def read(self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None) -> Array:
        """Compute one parameter, or the slice ``start:stop`` of it along ``axis``.

        Raises:
            KeyError: no such parameter.
            LlamakitError: a source cannot be read.
        """
        source = self.unchanged(name)
        if source is not None:
            return source.read(name, axis=axis, start=start, stop=stop)
        shape = self.parameters[name].shape
        first, last, _ = slice(start, stop).indices(shape[axis])
        begin, end = (first, last) if axis == 0 else (0, shape[0])
        narrowed = (*shape[:axis], max(last - first, 0), *shape[axis + 1 :])
        values = np.empty(narrowed, np.dtype(self.parameters[name].dtype))
        with np.errstate(over="ignore"):  # conversions name what became infinite
            for at, to in row_blocks(shape, begin, end):
                block = self.compute(name, at, to)
                values[at - begin : to - begin] = block if axis == 0 else block[:, first:last]
        with self._lock:
            self.nbytes_read += values.nbytes
        return values

    def nbytes_to_read(self) -> int:
        """Return how many bytes of the sources' weights are read at most, in all passes."""
        return sum(map(nbytes_of, self.sources[0].parameters.values()))

    def memory_nbytes(self) -> int:
        """Return about how much memory the blocks take that are computed at the same time."""
        return _THREADS * (2 * len(self.sources) + _TEMPORARIES) * BLOCK_VALUES * 4

    def provenance_sources(self) -> list[Checkpoint]:
        """Return the checkpoints on the disk that this one is computed from."""
        found: list[Checkpoint] = []
        for source in self.sources:
            found += (
                source.provenance_sources() if isinstance(source, BlockCheckpoint) else [source]
            )
        return found

    def weight_files(self) -> list[Path]:
        """Return the files of weights of all sources, as far as these say."""
        listed: list[Path] = []
        for source in self.sources:
            files = getattr(source, "weight_files", None)
            listed += files() if callable(files) else []
        return sorted(set(listed))
