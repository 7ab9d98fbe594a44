"""How the attention of a batch is cut into pieces that no operator has to pad or mask much.

A piece is one call of an attention operator, or a few. Rows of very different lengths would be
padded to the longest; a mask of all new positions against all of the cache would grow with the
square of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

CALL_NBYTES = 400_000
"""How many bytes of padded keys and values cost as much as another call: some 25 µs at 15 GB/s."""

MASK_NUMEL = 1 << 19
"""The largest mask, in elements of a row: the 512 positions of a prompt's chunk, 512 before them.
Longer pasts are attended to without one, and combined."""


@dataclass(frozen=True)
class Piece:
    """The attention of some adjacent rows to a range of the cache.

    Args:
        rows: of the batch.
        queries: of its T new positions.
        begin: the first position that is attended to.
        start: the position of the first query, where each sees the keys up to itself; None where
            the mask says what is seen, or every query sees every key.
        stop: the end of the positions that are attended to.
        mask: ``(B or 1, 1, T, stop - begin)``, 0 where a query sees a key, else -inf.
    """

    rows: slice
    queries: slice
    begin: int
    start: int | None
    stop: int
    mask: torch.Tensor | None = None


@dataclass(frozen=True)
class SharedPrefix:
    """First positions that some rows have in common, in a slot that none of them writes to.

    Args:
        rows: of the batch.
        block: that slot.
        length: how many positions.
    """

    rows: slice | list[int]
    block: int
    length: int


@dataclass(frozen=True)
class CutLimits:
    """What decides how a batch is cut.

    Args:
        padding: how many padded positions, of one row and layer, cost as much as another call.
        rows: fewer in a call leave threads without work.
        block: the most positions that are read at once under a mask.
    """

    padding: int
    rows: int
    block: int


Masker = Callable[[slice, int, int], torch.Tensor]
"""Makes the mask of some rows from one position of the cache to another."""


def plan(
    starts: Sequence[int],
    count: int,
    limits: CutLimits,
    masker: Masker,
    chunk: int | None,
    prefixes: Sequence[int] = (),
) -> tuple[Piece, ...]:
    """Cut a batch into pieces.

    Args:
        starts: the first new position of each row.
        count: T.
        chunk: attention stays within chunks of so many positions.
        prefixes: so many first positions of each row are left to calls of their own; () if none.
    """
    begins = [start // chunk * chunk if chunk else 0 for start in starts]
    begins = list(prefixes) or begins
    lengths = [start + count - begin for start, begin in zip(starts, begins, strict=True)]
    pieces: list[Piece] = []
    for rows in _groups(begins, lengths, limits):
        aligned = len(set(zip(starts[rows], begins[rows], strict=True))) == 1
        begin = min(begins[rows])
        stop = max(starts[rows]) + count
        is_first = starts[rows.start] == begin and (not chunk or stop <= begin + chunk)
        if aligned and (count == 1 or is_first):
            start = None if count == 1 else begin
            pieces.append(Piece(rows, slice(0, count), begin, start, stop))
        elif (stop - begin) * count <= MASK_NUMEL and (aligned or stop - begin <= limits.block):
            mask = masker(rows, begin, stop)
            pieces.append(Piece(rows, slice(0, count), begin, None, stop, mask))
        else:
            for run in _runs(starts, begins, rows):
                pieces += _causal(run, starts[run.start], begins[run.start], count, chunk)
    return tuple(pieces)


def _groups(begins: Sequence[int], lengths: Sequence[int], limits: CutLimits) -> Iterator[slice]:
    """Yield adjacent rows that are padded to the longest, which costs less than another call."""
    first, low, high = 0, begins[0], begins[0] + lengths[0]
    for row in range(1, len(begins)):
        begin, stop, count = begins[row], begins[row] + lengths[row], row - first
        joined = (count + 1) * (max(high, stop) - min(low, begin))
        padding = joined - count * (high - low) - lengths[row]
        if padding > limits.padding and count >= limits.rows:
            yield slice(first, row)
            first, low, high = row, begin, stop
        low, high = min(low, begin), max(high, stop)
    yield slice(first, len(begins))


def _runs(starts: Sequence[int], begins: Sequence[int], rows: slice) -> Iterator[slice]:
    """Yield adjacent rows that start at the same position and attend from the same one on."""
    first = rows.start
    for row in range(rows.start + 1, rows.stop + 1):
        if row == rows.stop or (starts[row], begins[row]) != (starts[first], begins[first]):
            yield slice(first, row)
            first = row


def _causal(rows: slice, start: int, begin: int, count: int, chunk: int | None) -> Iterator[Piece]:
    """Yield causal pieces of rows that start at the same position, one for each chunk."""
    done = 0
    while done < count:
        position = start + done
        begin = position // chunk * chunk if chunk else begin
        stop = min(start + count, begin + chunk) if chunk else start + count
        yield Piece(rows, slice(done, stop - start), begin, position, stop)
        done = stop - start


def shared_prefixes(prefixes: Sequence[tuple[int, int]]) -> tuple[SharedPrefix, ...]:
    """Return the prefixes of a batch, each with its rows.

    Args:
        prefixes: of each row the slot that its first positions are in, and how many; ``(0, 0)``
            where they are in its own.
    """
    rows: dict[tuple[int, int], list[int]] = {}
    for row, prefix in enumerate(prefixes):
        if prefix[1]:
            rows.setdefault(prefix, []).append(row)
    return tuple(SharedPrefix(_as_slice(them), *prefix) for prefix, them in rows.items())


def _as_slice(rows: list[int]) -> slice | list[int]:
    """Return a slice where rows are adjacent: it copies nothing."""
    is_adjacent = rows[-1] - rows[0] + 1 == len(rows)
    return slice(rows[0], rows[-1] + 1) if is_adjacent else rows
