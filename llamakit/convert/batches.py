"""Splits moves into batches: a few megabytes read, permuted and written together.

Each byte of the source is read once. Where a parameter is split on its columns, a batch is the same
rows of all its regions; every file that gets some of these columns gets them from this batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from llamakit.checkpoint.dtypes import itemsize
from llamakit.convert.disk import ALIGNMENT, align_up
from llamakit.convert.moves import Move, Region, Target

BATCH_NBYTES = 8 << 20
_MADE_NBYTES = 2 << 20
"""Of a parameter that is in no file as it is: making it takes a few times the memory."""


@dataclass(frozen=True)
class Read:
    """Some whole rows of one region."""

    region: Region
    start: int
    stop: int
    """In rows of the region."""
    row_nbytes: int

    @property
    def offset(self) -> int:
        """Bytes from the start of the region's file."""
        return self.region.offset + self.start * self.row_nbytes

    @property
    def nbytes(self) -> int:
        """How many bytes these rows are."""
        return (self.stop - self.start) * self.row_nbytes


@dataclass(frozen=True)
class ColumnSlice:
    """Columns ``start:stop`` of what one read of the batch brings."""

    read: int
    start: int
    stop: int


@dataclass(frozen=True)
class Sink:
    """Files that get these columns, side by side."""

    files: tuple[int, ...]
    slices: tuple[ColumnSlice, ...]


@dataclass(frozen=True)
class CopyBatch:
    """Some rows of one parameter."""

    move: Move
    reads: tuple[Read, ...]
    sinks: tuple[Sink, ...]

    @property
    def memory_nbytes(self) -> int:
        """How much memory reading it takes: each read may begin and end inside a block."""
        return sum(align_up(read.nbytes) + ALIGNMENT for read in self.reads)


def batches(moves: Iterable[Move], limit: int = BATCH_NBYTES) -> Iterator[CopyBatch]:
    """Split moves into batches.

    Args:
        moves: in the order in which they are executed.
        limit: about how many bytes are read for a batch. One row of all regions, or the rows
            that a turn takes together, are never split.
    """
    for move in moves:
        is_made = any(region.path is None for region in move.regions)
        most = min(limit, _MADE_NBYTES) if is_made else limit
        yield from (_by_rows if move.axis == 0 else _by_columns)(move, most)


def largest(moves: Iterable[Move]) -> int:
    """Return the memory of the largest batch, in bytes."""
    return max((batch.memory_nbytes for batch in batches(moves)), default=0)


def _by_rows(move: Move, limit: int) -> Iterator[CopyBatch]:
    row_nbytes = move.regions[0].columns * itemsize(move.dtype)
    together = move.head_dim
    step = max(1, limit // max(1, row_nbytes * together)) * together
    for target in sorted(move.targets, key=lambda target: target.start):
        for region, start, stop in overlaps(move.regions, target):
            for at in range(start, stop, step):
                read = Read(region, at, min(at + step, stop), row_nbytes)
                sink = Sink(target.files, (ColumnSlice(0, 0, region.columns),))
                yield CopyBatch(move, (read,), (sink,))


def overlaps(regions: Sequence[Region], target: Target) -> Iterator[tuple[Region, int, int]]:
    """Yield the rows of each region that a target takes."""
    first = 0
    for region in regions:
        start, stop = max(target.start - first, 0), min(target.stop - first, region.rows)
        if start < stop:
            yield region, start, stop
        first += region.rows


def _by_columns(move: Move, limit: int) -> Iterator[CopyBatch]:
    width = itemsize(move.dtype)
    rows = move.regions[0].rows
    step = max(1, limit // max(1, width * sum(region.columns for region in move.regions)))
    sinks = tuple(Sink(target.files, columns(move.regions, target)) for target in move.targets)
    for at in range(0, rows, step):
        stop = min(at + step, rows)
        reads = (Read(region, at, stop, region.columns * width) for region in move.regions)
        yield CopyBatch(move, tuple(reads), sinks)


def columns(regions: Sequence[Region], target: Target) -> tuple[ColumnSlice, ...]:
    """Say which columns of which regions a target takes, side by side."""
    slices = []
    first = 0
    for index, region in enumerate(regions):
        start, stop = max(target.start - first, 0), min(target.stop - first, region.columns)
        if start < stop:
            slices.append(ColumnSlice(index, start, stop))
        first += region.columns
    return tuple(slices)
