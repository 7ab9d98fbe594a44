"""Where each byte of a source's files is in the files that a plan writes.

What only moves values maps bytes to bytes. So the files of a source can be written where the plan
wants them in any order, and read back from there: each is stored in parts of other files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from hashlib import sha256
from itertools import accumulate
from pathlib import Path

from llamakit.checkpoint.dtypes import itemsize
from llamakit.checkpoint.file_layout import FileLayout
from llamakit.convert.batches import columns, overlaps
from llamakit.convert.conversion_plan import ConversionPlan
from llamakit.convert.file_frames import value_rooms
from llamakit.convert.moves import Move, Region, Target
from llamakit.errors import UnsupportedModelError
from llamakit.protocols import RowOrder

Piece = tuple[int, int, int, int]
"""Bytes that follow one another in a file of the source and in one that is written.

Where they begin in the former; the latter, as the plan counts them; where they begin there; and how
many they are. A plain tuple, for rows of a few hundred bytes come by the million.
"""


@dataclass(frozen=True)
class Placement:
    """A matrix in a file of the source, of which some columns are in a file that is written."""

    start: int
    """Bytes from the start of the source's file to the first row."""
    rows: int
    row_nbytes: int
    column: int
    """Bytes from the start of a row to the first that are placed."""
    width: int
    """How many bytes of each row are placed."""
    file: int
    """The file that is written; the plan counts them from 0."""
    offset: int
    """Bytes from the start of that file to where the first row goes."""
    stride: int
    """Bytes from one row to the next there."""
    turn: RowOrder | None = None
    head_dim: int = 1

    @property
    def stop(self) -> int:
        """Bytes from the start of the source's file to the end of the last row."""
        return self.start + self.rows * self.row_nbytes

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Say where the bytes ``start:stop`` of the source's file go, as far as they do."""
        start, stop = max(start, self.start), min(stop, self.stop)
        if start >= stop:
            return
        first = (start - self.start) // self.row_nbytes
        last = (stop - 1 - self.start) // self.row_nbytes
        placed = self.start + first * self.row_nbytes + self.column
        for row in range(first, last + 1):
            there = row if self.turn is None else self._turned(row)
            at = self.offset + there * self.stride
            if start <= placed and placed + self.width <= stop:
                yield placed, self.file, at, self.width
            else:
                begin, end = max(start, placed), min(stop, placed + self.width)
                if begin < end:
                    yield begin, self.file, at + begin - placed, end - begin
            placed += self.row_nbytes

    def _turned(self, row: int) -> int:
        """Return which row it becomes: the two orders of a head's rows differ."""
        head, row = divmod(row, self.head_dim)
        half = self.head_dim // 2
        if self.turn == "huggingface":
            pair, side = divmod(row, 2)
            return head * self.head_dim + side * half + pair
        side, pair = divmod(row, half)
        return head * self.head_dim + 2 * pair + side


class FileMap:
    """The placements of one file of the source."""

    def __init__(self, placements: Sequence[Placement] = ()) -> None:
        self.placements = sorted(placements, key=lambda it: (it.start, it.file, it.offset))
        self._starts = [placement.start for placement in self.placements]
        # Matrices over the same bytes, as tied ones are, may end in another order.
        self._furthest = list(accumulate((it.stop for it in self.placements), max))

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Say where the bytes ``start:stop`` go, in no order; some may go to several places."""
        for index in range(bisect_right(self._furthest, start), len(self.placements)):
            if self._starts[index] >= stop:
                return
            yield from self.placements[index].pieces(start, stop)

    def gaps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of ``start:stop`` that go nowhere."""
        at = start
        for index in range(bisect_right(self._furthest, start), len(self.placements)):
            placement = self.placements[index]
            if placement.start >= stop:
                break
            if placement.start > at:
                yield at, placement.start
            at = max(at, placement.stop)
        if at < stop:
            yield at, stop


def scatter(plan: ConversionPlan) -> dict[Path, FileMap]:
    """Say where the bytes of the source's files go.

    Args:
        plan: of a checkpoint whose parameters are all in its files.

    Raises:
        UnsupportedModelError: values are computed, or are in no file as such.
    """
    ends = [_Cursor(file.layout) for file in plan.weights]
    placements: dict[Path, list[Placement]] = {}
    for move in plan.moves:
        _check_moved(move, plan.checkpoint.path)
        for target in sorted(move.targets, key=lambda target: target.start):
            nbytes = _nbytes(move, target)
            for file in target.files:
                at = ends[file].take(nbytes)
                for region, placement in _placements(move, target, file, at):
                    assert region.path is not None
                    placements.setdefault(region.path, []).append(placement)
    return {path: FileMap(found) for path, found in placements.items()}


def digest(maps: dict[Path, FileMap], plan: ConversionPlan) -> str:
    """Return what differs between two plans that write other bytes to other places."""
    total = sha256()
    for path, found in sorted(maps.items()):
        total.update(repr((path.name, [astuple(it) for it in found.placements])).encode())
    for file in plan.weights:
        total.update(repr((file.name, file.nbytes)).encode() + file.layout.head)
    return total.hexdigest()


class _Cursor:
    """Counts off the values of a file, in the order in which they are in it."""

    def __init__(self, layout: FileLayout) -> None:
        self._rooms = deque(value_rooms(layout))

    def take(self, nbytes: int) -> int:
        """Return where the next ``nbytes`` of values go; several may make up one tensor."""
        if not nbytes:
            return 0
        offset, room = self._rooms.popleft()
        assert nbytes <= room
        if nbytes < room:
            self._rooms.appendleft((offset + nbytes, room - nbytes))
        return offset


def _check_moved(move: Move, path: Path) -> None:
    length = sum(it.rows if move.axis == 0 else it.columns for it in move.regions)
    is_whole = sum(target.stop - target.start for target in move.targets) == length
    is_moved = move.new_dtype == move.dtype and all(it.path is not None for it in move.regions)
    if not (is_whole and is_moved):
        raise UnsupportedModelError(
            f"{path}: {move.name} cannot be written while it is fetched, because its values are "
            "not stored as they are needed. Download the model, and convert it then."
        )


def _nbytes(move: Move, target: Target) -> int:
    others = move.regions[0].columns if move.axis == 0 else move.regions[0].rows
    return (target.stop - target.start) * others * itemsize(move.dtype)


def _placements(
    move: Move, target: Target, file: int, at: int
) -> Iterator[tuple[Region, Placement]]:
    width = itemsize(move.dtype)
    if move.axis == 0:
        for region, start, stop in overlaps(move.regions, target):
            row = region.columns * width
            begin = region.offset + start * row
            yield region, _rows(begin, stop - start, row, file, at, move)
            at += (stop - start) * row
        return
    assert move.turn is None
    stride = (target.stop - target.start) * width
    for part in columns(move.regions, target):
        region = move.regions[part.read]
        wide = (part.stop - part.start) * width
        matrix = (region.offset, region.rows, region.columns * width)
        yield region, Placement(*matrix, part.start * width, wide, file, at, stride)
        at += wide


def _rows(begin: int, rows: int, row: int, file: int, at: int, move: Move) -> Placement:
    """Place whole rows: one after the other, or turned within each head."""
    if move.turn is None:
        nbytes = rows * row
        return Placement(begin, 1, nbytes, 0, nbytes, file, at, nbytes)
    return Placement(begin, rows, row, 0, row, file, at, row, move.turn, move.head_dim)
