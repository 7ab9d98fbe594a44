"""Plans files that hold each value of a model once, split in any number of them.

What Meta's format repeats for each rank, such as the norms, is in the first file alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llamakit.checkpoint import llama4
from llamakit.checkpoint.capabilities import stored_names
from llamakit.checkpoint.checked_read import slice_shape
from llamakit.checkpoint.hf_names import is_rotated
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, check_parameters
from llamakit.convert.companion_files import model_facts
from llamakit.convert.conversion_plan import (
    ConversionPlan,
    SmallFile,
    copied_files,
    source_stamps,
)
from llamakit.convert.conversion_record import plan_record
from llamakit.convert.moves import Move, Target, WeightFile, make_move
from llamakit.errors import OptionError, UnsupportedModelError
from llamakit.protocols import Checkpoint, Parameter, RowOrder, ToolCommand

MAX_FILES = 1024


@dataclass(frozen=True)
class ParameterSlice:
    """A part of a parameter that one file gets."""

    name: str
    """Meta's name of what is written: ``output.weight`` is also made of a tied embedding."""
    source: Parameter
    """What it is made of, whole."""
    start: int
    stop: int
    """Along the parameter's axis, or axis 0 where that is None."""

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where the first value is in the whole parameter, by axis."""
        at = [0] * len(self.source.shape)
        if at:
            at[self.source.axis or 0] = self.start
        return tuple(at)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the part."""
        return slice_shape(self.source, self.source.axis or 0, self.start, self.stop)


def slice_parameters(checkpoint: Checkpoint, size: int) -> list[list[ParameterSlice]]:
    """Say which slices of a model each of ``size`` files gets, about equally many bytes.

    No head of attention is split, so rows can be reordered. A file may get nothing of a parameter.

    Args:
        checkpoint: what is read.
        size: how many files, any number.
    Returns:
        By file, in the order in which they are written.

    Raises:
        OptionError: ``size`` is out of range.
        ParametersError: parameters are missing, or are of another model.
        UnsupportedModelError: a Llama 4, whose experts have names of their own in each format.
    """
    check_parameters(checkpoint)
    if llama4.architecture_of(checkpoint.params) is not None:
        raise UnsupportedModelError(
            f"{checkpoint.path} is a Llama 4, whose experts are not written in this format. Export "
            "it with --format hf."
        )
    if not 1 <= size <= MAX_FILES:
        raise OptionError(f"shards is {size}; it has to be from 1 to {MAX_FILES}")
    parameters = {name: checkpoint.parameters[name] for name in stored_names(checkpoint)}
    if checkpoint.params.tied_embeddings:
        parameters.setdefault(OUTPUT, replace(parameters[EMBEDDING], axis=0))
    files: list[list[ParameterSlice]] = [[] for _ in range(size)]
    for name, parameter in parameters.items():
        unit = checkpoint.params.head_dim if is_rotated(parameter.name) else 1
        for file, (start, stop) in enumerate(_bounds(parameter, size, unit)):
            if start < stop:
                files[file].append(ParameterSlice(name, parameter, start, stop))
    return files


def plan_slices(
    checkpoint: Checkpoint,
    destination: Path,
    slices: Sequence[Sequence[ParameterSlice]],
    files: Sequence[WeightFile],
    small_files: Sequence[SmallFile],
    *,
    order: RowOrder = "meta",
    command: ToolCommand,
) -> ConversionPlan:
    """Plan the files that hold these slices.

    Args:
        checkpoint: what is read.
        destination: the folder to make.
        slices: by file, as ``slice_parameters`` returns them.
        files: the name and the layout of each, whose tensors are these slices.
        small_files: next to them.
        order: of the rows of query and key projections in the files.
        command: what llamakit.json says was asked for.
    """
    targets: dict[str, list[Target]] = {}
    sources: dict[str, Parameter] = {}
    for file, parts in enumerate(slices):
        for part in parts:
            targets.setdefault(part.name, []).append(Target(part.start, part.stop, (file,)))
            sources[part.name] = part.source
    moves: tuple[Move, ...] = tuple(
        make_move(checkpoint, sources[name], parts, order=order) for name, parts in targets.items()
    )
    return ConversionPlan(
        checkpoint,
        destination,
        moves,
        tuple(files),
        tuple(small_files),
        source_stamps(checkpoint, moves, small_files),
        has_checklist=False,
        record=plan_record(
            checkpoint,
            command,
            moves,
            copied_files(small_files),
            {"model_parallel_size": 1, **model_facts(checkpoint, {})},
        ),
    )


def _bounds(parameter: Parameter, size: int, unit: int) -> list[tuple[int, int]]:
    """Split an axis as ``torch.chunk`` does, in whole units; what has no axis is not split."""
    length = parameter.shape[parameter.axis or 0] if parameter.shape else 1
    if parameter.axis is None:
        return [(0, length)]
    step = -(-length // (size * unit)) * unit
    return [(min(file * step, length), min((file + 1) * step, length)) for file in range(size)]
