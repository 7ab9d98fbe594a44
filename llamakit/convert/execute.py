"""Executes moves: reads batches, turns and casts them, and puts them into files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from llamakit.checkpoint.dtypes import DTYPES, Array
from llamakit.checkpoint.rope_permutation import permute_rotary, unpermute_rotary
from llamakit.convert.batches import Sink, batches, largest
from llamakit.convert.moves import Move, WeightFile, files_of
from llamakit.convert.reader import AHEAD, SourceReader
from llamakit.convert.rounded_rows import packed, round_rows
from llamakit.convert.source_checksums import SourceChecksums
from llamakit.convert.writer import Lanes, OutputFile, block_count, block_nbytes
from llamakit.protocols import Checkpoint

ProgressCallback = Callable[[int], None]
"""Called with how many bytes have been read and put into files since the last time."""


def execute_moves(
    checkpoint: Checkpoint,
    moves: Sequence[Move],
    files: Sequence[WeightFile],
    folder: Path,
    *,
    direct: bool | None = None,
    checksums: SourceChecksums | None = None,
    progress: ProgressCallback | None = None,
    only: Collection[int] | None = None,
) -> dict[str, str]:
    """Write files of weights.

    Args:
        checkpoint: what is read.
        moves: in the order of the tensors in every file.
        files: what is written; the moves count them from 0.
        folder: where, a folder that exists.
        direct: past the kernel's cache; None: where the file system allows it and it pays.
        only: the numbers of the files that the moves fill; None: all.
        checksums: sees what is read; whoever passes it takes the checksums from it afterwards.
    Returns:
        The md5 of each file by its name.

    Raises:
        DamagedFileError: the source has changed since it was opened.
        OSError: a file could not be written.
    """
    outputs: dict[int, OutputFile] = {}
    infinite: Counter[str] = Counter()
    with (
        Lanes(open_at_a_time(moves), direct=direct) as lanes,
        SourceReader(checkpoint, largest(moves), direct) as read,
    ):
        for batch, arrays in read(batches(moves)):
            jobs = checksums.update(batch, arrays) if checksums else []
            ready = [_converted(batch.move, array, infinite) for array in arrays]
            for sink in batch.sinks:
                for index, parts in _written(batch.move, sink, ready):
                    if index not in outputs:
                        file = files[index]
                        outputs[index] = lanes.open(folder / file.name, file.layout)
                    outputs[index].put(parts)
            for job in jobs:
                job.result()
            if progress:
                progress(sum(array.nbytes for array in arrays))
        filled = range(len(files)) if only is None else sorted(only)
        written = {files[index].name: outputs[index].finish() for index in filled}
    _warn_of_infinite(infinite)
    return written


def memory_nbytes(moves: Sequence[Move]) -> int:
    """Return how much memory ``execute_moves`` takes for its buffers, in bytes."""
    files = open_at_a_time(moves)
    return AHEAD * largest(moves) + block_count(files) * block_nbytes(files)


def open_at_a_time(moves: Sequence[Move]) -> int:
    """Return how many files are begun and not ended at the same time, at most."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, move in enumerate(moves):
        for file in files_of(move):
            first.setdefault(file, number)
            last[file] = number
    begun = Counter(first.values())
    ended = Counter(last.values())
    most = now = 0
    for number in range(len(moves)):
        now += begun[number]
        most = max(most, now)
        now -= ended[number]
    return most


def _written(
    move: Move, sink: Sink, arrays: Sequence[Array]
) -> Iterator[tuple[int, Sequence[Array]]]:
    """Yield what each file gets of a batch: rows of bytes, in parts that are side by side."""
    parts = _columns_of(move, sink, arrays)
    if move.rounding is None:
        for index in sink.files:
            yield index, parts
        return
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    integers, scales = round_rows(move.name, rows.view(DTYPES[move.dtype]), move.rounding.kind)
    yield sink.files[0], [packed(integers) if move.rounding.packed else integers]
    yield move.rounding.scales_file, [scales]


def _columns_of(move: Move, sink: Sink, arrays: Sequence[Array]) -> list[Array]:
    """Take a sink's columns from what the reads of its batch brought."""
    width = DTYPES[move.new_dtype].itemsize
    return [arrays[part.read][:, part.start * width : part.stop * width] for part in sink.slices]


def _converted(move: Move, array: Array, infinite: Counter[str]) -> Array:
    """Turn and cast the rows of one read.

    Args:
        array: ``(rows, bytes of a row)`` uint8.
        infinite: counts values that the new dtype has no room for.
    Returns:
        The same layout, with rows of another length if the dtype is another.
    """
    if move.turn is not None:
        turn = permute_rotary if move.turn == "huggingface" else unpermute_rotary
        array = turn(array, len(array) // move.head_dim)
    if move.new_dtype == move.dtype:
        return array
    values = array.view(DTYPES[move.dtype])
    with np.errstate(over="ignore"):
        cast = values.astype(DTYPES[move.new_dtype])
    lost = np.count_nonzero(np.isinf(cast)) - np.count_nonzero(np.isinf(values))
    if lost:
        infinite[move.name] += int(lost)
    return cast.view(np.uint8)


def _warn_of_infinite(infinite: Counter[str]) -> None:
    for name, count in infinite.items():
        logging.getLogger("llamakit").warning(
            "%s: %d values were too large for the new dtype and are infinite now", name, count
        )
