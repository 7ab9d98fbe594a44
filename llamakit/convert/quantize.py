"""Rounds a checkpoint to 8 or 4 bits, once and for any number of ranks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from llamakit._distribution import __version__
from llamakit.checkpoint.capabilities import stored_as
from llamakit.checkpoint.family_detection import family_of
from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, check_parameters, expected_shapes
from llamakit.checkpoint.plain_weights import check_plain_weights
from llamakit.checkpoint.quantized_checkpoint import MARKER, VERSION, stored_specs
from llamakit.checkpoint.rounding import kinds_of
from llamakit.checkpoint.safetensors_writer import SafetensorsLayout
from llamakit.convert.companion_files import meta_companions, model_facts
from llamakit.convert.conversion_plan import (
    ConversionPlan,
    SmallFile,
    copied_files,
    source_stamps,
)
from llamakit.convert.conversion_record import plan_record
from llamakit.convert.moves import Move, Rounding, WeightFile, make_move, spec_for_slice, whole
from llamakit.errors import UnsupportedModelError, UsageError
from llamakit.protocols import Checkpoint, Parameter, Quantization, ToolCommand

_FILE_NBYTES = 5 * 10**9
"""About how large a file of weights is."""


def plan_quantize(checkpoint: Checkpoint, destination: Path, bits: str) -> ConversionPlan:
    """Plan a folder of rounded weights.

    Args:
        checkpoint: what is read.
        destination: the folder to make.
        bits: as ``--quantize`` of the commands that run a model.

    Raises:
        UsageError: no such ``bits``.
        UnsupportedModelError: it is quantized already, or of Llama 4.
        ParametersError: parameters are missing, or are of another model.
    """
    quantize: Quantization
    match bits:
        case "int8" | "int4":
            quantize = bits
        case _:
            raise UsageError(f"bits is {bits!r:.60}; expected int8 or int4")
    check_plain_weights(checkpoint)
    check_parameters(checkpoint)
    check_not_quantized(checkpoint)
    kinds = kinds_of(checkpoint.params, quantize)
    moves: list[Move] = []
    tensors: list[list[TensorSpec]] = []
    for name, parameter in _parameters(checkpoint).items():
        if not tensors or (tensors[-1] and sum(spec.nbytes for spec in tensors[-2]) > _FILE_NBYTES):
            tensors += [[], []]
        file = len(tensors) - 2
        kind = kinds.get(name)
        rounding = kind and Rounding(kind, file + 1, *stored_specs(name, kind, parameter.shape))
        move = make_move(checkpoint, parameter, [whole(parameter, file)])
        moves.append(replace(move, rounding=rounding))
        for index, spec in specs_of(name, parameter, moves[-1]):
            tensors[index].append(spec)
    files = rounded_files(tensors, "quantized")
    small = [
        *meta_companions(checkpoint),
        SmallFile(MARKER, _marker(checkpoint, quantize, files)),
    ]
    command = ToolCommand("quantize", {"bits": bits})
    facts = model_facts(checkpoint, {})
    return ConversionPlan(
        checkpoint,
        destination,
        tuple(moves),
        files,
        tuple(small),
        source_stamps(checkpoint, moves, small),
        has_checklist=True,
        record=plan_record(checkpoint, command, moves, copied_files(small), facts),
    )


def check_not_quantized(checkpoint: Checkpoint) -> None:
    """Refuse to round what is rounded: that would change values again.

    Raises:
        UnsupportedModelError: some weights are stored rounded.
    """
    if stored := stored_as(checkpoint):
        raise UnsupportedModelError(
            f"{checkpoint.path}: {stored} already, and what is rounded is not rounded again. "
            "Name the model that it was made from."
        )


def specs_of(name: str, parameter: Parameter, move: Move) -> list[tuple[int, TensorSpec]]:
    """List the tensors that a move of a whole parameter writes, each with its file.

    Args:
        name: of the tensor, if it is not rounded.
    """
    (target,) = move.targets
    if move.rounding is None:
        spec = spec_for_slice(name, parameter, target, move.new_dtype)
        return [(target.files[0], spec)]
    return [
        (target.files[0], move.rounding.integers),
        (move.rounding.scales_file, move.rounding.scales),
    ]


def rounded_files(tensors: Sequence[Sequence[TensorSpec]], stem: str) -> tuple[WeightFile, ...]:
    """Name the files, which hold integers and scales in turn."""
    return tuple(
        WeightFile(
            f"{stem}-{number:05d}-of-{len(tensors):05d}.safetensors", SafetensorsLayout(specs)
        )
        for number, specs in enumerate(tensors, 1)
    )


def _parameters(checkpoint: Checkpoint) -> dict[str, Parameter]:
    """List what is stored; the output layer is rounded, also where it is the embedding."""
    parameters = {name: checkpoint.parameters[name] for name in expected_shapes(checkpoint.params)}
    if checkpoint.params.tied_embeddings:
        parameters[OUTPUT] = replace(parameters[EMBEDDING], axis=0)
    return parameters


def _marker(checkpoint: Checkpoint, quantize: Quantization, files: Sequence[WeightFile]) -> bytes:
    places = {spec.name: file.name for file in files for spec in file.layout.stored}
    values = {
        "version": VERSION,
        "made_by": f"llamakit {__version__}",
        "quantize": quantize,
        "family": family_of(checkpoint).name,
        "embedding_axis": checkpoint.parameters[EMBEDDING].axis,
        "tied_embeddings": checkpoint.params.tied_embeddings,
        "weight_map": dict(sorted(places.items())),
    }
    return (json.dumps(values, indent=2) + "\n").encode()
