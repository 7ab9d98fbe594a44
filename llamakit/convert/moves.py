"""Which parameter of a checkpoint becomes which tensors of which files, as plain values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamakit.checkpoint.capabilities import raw_regions
from llamakit.checkpoint.checked_read import slice_shape
from llamakit.checkpoint.dtypes import PLAIN_DTYPES, itemsize
from llamakit.checkpoint.file_layout import FileLayout, TensorSpec
from llamakit.checkpoint.hf_names import is_rotated
from llamakit.checkpoint.layout import ROPE_FREQS
from llamakit.checkpoint.shard_plan import slice_for_rank
from llamakit.errors import OptionError
from llamakit.protocols import Checkpoint, Parameter, Quantization, RowOrder

CASTS = ("float32", "bfloat16", "float16")
"""The dtypes that weights are cast to."""


@dataclass(frozen=True)
class Region:
    """A part of a parameter that is in one place: a matrix, row by row."""

    rows: int
    columns: int
    """In values; a tensor of other than two axes is seen as a matrix of its first axis."""
    path: Path | None
    """The file. None: the checkpoint's own ``read`` has to be called."""
    offset: int = 0
    """Bytes from the start of the file to the first value."""


@dataclass(frozen=True)
class Target:
    """``start:stop`` of a parameter along its axis, and the files that get it."""

    start: int
    stop: int
    files: tuple[int, ...]


@dataclass(frozen=True)
class Rounding:
    """Rows are written as integers, and their scales to a file of their own.

    A file is written from its first byte to its last, and so no scales are kept in memory until
    the integers of a whole weight are written.
    """

    kind: Quantization
    scales_file: int
    integers: TensorSpec
    scales: TensorSpec
    packed: bool = False
    """Four integers share an int32, each plus 128: ``pack-quantized`` of compressed-tensors."""


@dataclass(frozen=True)
class Move:
    """One parameter of the source, and what is made of it."""

    name: str
    regions: tuple[Region, ...]
    """They follow one another along ``axis``."""
    axis: int
    """0 or 1, of the regions and the targets."""
    targets: tuple[Target, ...]
    dtype: str
    """What the source stores."""
    new_dtype: str
    turn: RowOrder | None = None
    """The order that rows are brought into, if it is another than they are in."""
    head_dim: int = 1
    """How many rows belong together where there is a ``turn``."""
    rounding: Rounding | None = None


@dataclass(frozen=True)
class WeightFile:
    """A file of weights that is to be written."""

    name: str
    layout: FileLayout

    @property
    def nbytes(self) -> int:
        """Its exact size."""
        return self.layout.nbytes


def regions_of(checkpoint: Checkpoint, parameter: Parameter) -> tuple[tuple[Region, ...], RowOrder]:
    """Say where a parameter is, and in which order its rows are there.

    One that is cut within a head, as FSDP cuts it, is read by the checkpoint: a head's rows are
    turned together.

    Args:
        parameter: as the checkpoint has it, or split on another axis.
    """
    stored = checkpoint.parameters[parameter.name]
    found = raw_regions(checkpoint, stored)
    is_across = len(found) > 1 and stored.axis != parameter.axis
    head_dim = checkpoint.params.head_dim if is_rotated(parameter.name) else 1
    if not found or is_across or any(raw.shape[0] % head_dim for raw in found):
        return (Region(*_matrix(parameter.shape), None),), "meta"
    regions = (Region(*_matrix(raw.shape), raw.path, raw.offset) for raw in found)
    return tuple(regions), found[0].order


def _matrix(shape: Sequence[int]) -> tuple[int, int]:
    return (shape[0] if shape else 1), math.prod(shape[1:])


def cast_dtype(name: str, dtype: str, wanted: str | None) -> str:
    """Say what a parameter is stored as when ``wanted`` is asked for.

    Raises:
        OptionError: weights are not cast to that.
    """
    if wanted is None:
        return dtype
    if wanted not in CASTS:
        raise OptionError(f"weights are not cast to {wanted!r}; choose one of {', '.join(CASTS)}")
    return wanted if dtype in PLAIN_DTYPES and name != ROPE_FREQS else dtype


def make_move(
    checkpoint: Checkpoint,
    parameter: Parameter,
    targets: Sequence[Target],
    *,
    dtype: str | None = None,
    order: RowOrder = "meta",
) -> Move:
    """Say how one parameter gets to where it is wanted.

    Args:
        parameter: the parameter, whole.
        targets: slices along its axis.
        dtype: what to cast to, or None.
        order: of the rows of query and key projections in the files.
    """
    regions, present = regions_of(checkpoint, parameter)
    turned = is_rotated(parameter.name) and present != order
    return Move(
        parameter.name,
        regions,
        parameter.axis or 0,
        tuple(targets),
        parameter.dtype,
        cast_dtype(parameter.name, parameter.dtype, dtype),
        order if turned else None,
        checkpoint.params.head_dim if turned else 1,
    )


def files_of(move: Move) -> Iterator[int]:
    """Yield every file that a move writes to."""
    for target in move.targets:
        yield from target.files
    if move.rounding is not None:
        yield move.rounding.scales_file


def whole(parameter: Parameter, file: int) -> Target:
    """Say that one file gets all of a parameter."""
    length = parameter.shape[parameter.axis or 0] if parameter.shape else 1
    return Target(0, length, (file,))


def targets_for_size(parameter: Parameter, checkpoint: Checkpoint, size: int) -> list[Target]:
    """Say which ranks of ``size`` get which slices; those that get the same share a target."""
    if not parameter.shape:
        return [Target(0, 1, tuple(range(size)))]
    ranks: dict[tuple[int, int], list[int]] = {}
    for rank in range(size):
        part = slice_for_rank(parameter, checkpoint.params, rank, size)
        ranks.setdefault((part.start, part.stop), []).append(rank)
    return [Target(start, stop, tuple(files)) for (start, stop), files in ranks.items()]


def spec_for_slice(name: str, parameter: Parameter, target: Target, dtype: str) -> TensorSpec:
    """Describe the tensor that a target becomes."""
    shape = slice_shape(parameter, parameter.axis or 0, target.start, target.stop)
    return TensorSpec(name, dtype, shape)


def nbytes_read(moves: Sequence[Move]) -> int:
    """Return how many bytes of weights are read, each once."""
    return sum(
        region.rows * region.columns * itemsize(move.dtype)
        for move in moves
        for region in move.regions
    )


def tensors_by_file(
    moves: Sequence[tuple[str, Move]], parameters: Mapping[str, Parameter], files: int
) -> list[list[TensorSpec]]:
    """List the tensors of each file, in the order in which they are written.

    Args:
        moves: each with the name that its tensors get.
        parameters: by those names.
        files: how many files there are.
    """
    tensors: list[list[TensorSpec]] = [[] for _ in range(files)]
    for name, move in moves:
        parameter = parameters[name]
        for target in move.targets:
            spec = spec_for_slice(name, parameter, target, move.new_dtype)
            for file in target.files:
                tensors[file].append(spec)
    return tensors
