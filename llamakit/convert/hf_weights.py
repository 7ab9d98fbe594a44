"""Which tensors of which files the weights of a Hugging Face folder become."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.hf_names import to_huggingface
from llamakit.checkpoint.layout import OUTPUT, expected_shapes
from llamakit.checkpoint.safetensors_writer import SafetensorsLayout
from llamakit.convert.conversion_plan import SmallFile
from llamakit.convert.hf_quantize import hf_rounding, is_packed, rounded_names, shapes_file
from llamakit.convert.llama4_names import with_llama4_names
from llamakit.convert.moves import Move, WeightFile, make_move, whole
from llamakit.convert.quantize import specs_of
from llamakit.protocols import Checkpoint

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class HfWeights:
    """Weights of a Hugging Face folder, and how they get there."""

    checkpoint: Checkpoint
    """What the moves read: Llama 4 under other names."""
    moves: tuple[Move, ...]
    files: tuple[WeightFile, ...]
    """What the moves write."""
    small_files: tuple[SmallFile, ...]
    """The shapes of packed weights, and the index of more than one file."""


def plan_hf_weights(checkpoint: Checkpoint, limit: int, scheme: str | None) -> HfWeights:
    """Plan the weights of a Hugging Face folder.

    Args:
        checkpoint: what is read; a whole model.
        limit: how many bytes of weights a file may have; a larger tensor has a file alone.
        scheme: how weights are rounded, one of ``hf_quantize.SCHEMES``, or None. The scales are in
            files of their own, one for each file of weights.
    """
    rounded = rounded_names(checkpoint, scheme)
    renamed = with_llama4_names(checkpoint)
    source = renamed or checkpoint
    names = {name: name for name in renamed.parameters} if renamed else _names(checkpoint)
    moves: list[Move] = []
    tensors: list[list[TensorSpec]] = []
    for group in _groups(source, names, limit):
        file = len(tensors)
        tensors += [[], []] if any(name in rounded for name in group) else [[]]
        for name in group:
            parameter = source.parameters[name]
            move = make_move(source, parameter, [whole(parameter, file)], order="huggingface")
            if name in rounded:
                rounding = hf_rounding(names[name], parameter, file + 1, scheme)
                move = replace(move, rounding=rounding)
            moves.append(move)
            for index, spec in specs_of(names[name], parameter, move):
                tensors[index].append(spec)
    shapes = {names[name]: source.parameters[name].shape for name in rounded}
    files, small_files = _files(tensors, shapes if is_packed(scheme) else {})
    return HfWeights(source, tuple(moves), files, small_files)


def _names(checkpoint: Checkpoint) -> dict[str, str]:
    """Return what each parameter is called; of tied embeddings, the output layer is left out."""
    names = {name: to_huggingface(name) or name for name in expected_shapes(checkpoint.params)}
    if checkpoint.params.tied_embeddings:
        names.pop(OUTPUT, None)
    return names


def _groups(checkpoint: Checkpoint, names: Mapping[str, str], limit: int) -> list[list[str]]:
    """Split parameters into those of one file each."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name in names:
        parameter = checkpoint.parameters[name]
        nbytes = TensorSpec(name, parameter.dtype, parameter.shape).nbytes
        if groups[-1] and filled + nbytes > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += nbytes
    return groups


def _files(
    tensors: Sequence[Sequence[TensorSpec]], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[WeightFile, ...], tuple[SmallFile, ...]]:
    """Name the files of weights, and make those next to them.

    Args:
        tensors: of each file.
        shapes: of packed weights, which are in a last file of their own.
    """
    count = len(tensors) + bool(shapes)
    files = [
        WeightFile(_file_name(index, count), SafetensorsLayout(specs))
        for index, specs in enumerate(tensors)
    ]
    small_files, listed = [], list(files)
    if shapes:
        content, described = shapes_file(_file_name(len(tensors), count), shapes)
        small_files.append(content)
        listed.append(described)
    if count > 1:
        small_files.append(SmallFile(INDEX, _index(listed)))
    return tuple(files), tuple(small_files)


def _file_name(index: int, files: int) -> str:
    if files == 1:
        return "model.safetensors"
    return f"model-{index + 1:05d}-of-{files:05d}.safetensors"


def _index(files: Sequence[WeightFile]) -> bytes:
    stored = {tensor.name: (file, tensor) for file in files for tensor in file.layout.stored}
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for _, tensor in stored.values())},
        "weight_map": {name: stored[name][0].name for name in sorted(stored)},
    }
    return (json.dumps(index, indent=2) + "\n").encode()
