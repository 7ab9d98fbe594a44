"""Plans for Meta's format: any number of shards, from a checkpoint of any format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llamakit.checkpoint import llama4
from llamakit.checkpoint.capabilities import model_parallel_size, stored_names
from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, check_parameters
from llamakit.checkpoint.plain_weights import check_plain_weights
from llamakit.checkpoint.pth_writer import PthLayout
from llamakit.checkpoint.safetensors_writer import SafetensorsLayout
from llamakit.checkpoint.shard_plan import check_size
from llamakit.convert.companion_files import meta_companions, model_facts
from llamakit.convert.conversion_plan import (
    ConversionPlan,
    copied_files,
    source_stamps,
    warn_if_multiplied_out,
)
from llamakit.convert.conversion_record import plan_record
from llamakit.convert.moves import Move, WeightFile, make_move, targets_for_size, tensors_by_file
from llamakit.protocols import Checkpoint, ToolCommand


def plan_shards(
    checkpoint: Checkpoint,
    destination: Path,
    size: int,
    *,
    dtype: str | Mapping[str, str] | None = None,
    command: ToolCommand | None = None,
    partial: bool = False,
) -> ConversionPlan:
    """Plan a folder of ``size`` shards in Meta's format.

    The parameters keep the order that the source's shards have them in, so each of these is read
    from its beginning to its end.

    Args:
        checkpoint: what is read.
        destination: where the folder is to appear.
        size: the model parallel size.
        dtype: what weights are cast to, all or by the name of each, or None.
        command: what llamakit.json says was asked for; without it: reshard.
        partial: write what is there, although it is no complete model.

    Raises:
        UnevenSplitError: the model cannot be split into so many shards.
        ParametersError: parameters are missing, or are of another model.
        UnsupportedModelError: Meta's format cannot hold this model.
        OptionError: weights are not cast to ``dtype``.
    """
    check_plain_weights(checkpoint)
    if not partial:
        check_parameters(checkpoint)
    check_size(checkpoint.params, size)
    warn_if_multiplied_out(checkpoint)
    embedding = checkpoint.parameters.get(EMBEDDING)
    is_tied = checkpoint.params.tied_embeddings and embedding is not None
    shared = is_tied and embedding is not None and embedding.axis == 0
    dtypes = dict.fromkeys(checkpoint.parameters, dtype) if isinstance(dtype, str) else dtype or {}
    moves, tensors = _moves(checkpoint, size, dtypes, without_output=shared)
    if shared:  # both are split alike, so they are stored once
        tensors = [[*shard, _shared_output(shard)] for shard in tensors]
    stems = [f"consolidated.{rank:02d}" for rank in range(size)]
    files = [
        WeightFile(f"{stem}.pth", PthLayout(stem, shard))
        for stem, shard in zip(stems, tensors, strict=True)
    ]
    options = {"model_parallel_size": size, "dtype": dtype}
    command = command or ToolCommand("reshard", options)
    model = {"model_parallel_size": size, **model_facts(checkpoint, dtypes)}
    return _plan(checkpoint, destination, moves, files, command, model, listed=True)


def plan_safetensors_shards(
    checkpoint: Checkpoint, destination: Path, command: ToolCommand
) -> ConversionPlan:
    """Plan Meta's parameters as .safetensors, a file for each shard.

    Raises: as ``plan_shards``.
    """
    check_parameters(checkpoint)
    warn_if_multiplied_out(checkpoint)
    size = model_parallel_size(checkpoint)
    moves, tensors = _moves(checkpoint, size, {})
    files = [
        WeightFile(f"consolidated.{rank:02d}.safetensors", SafetensorsLayout(shard))
        for rank, shard in enumerate(tensors)
    ]
    model = {"model_parallel_size": size, **model_facts(checkpoint, {})}
    return _plan(checkpoint, destination, moves, files, command, model, listed=False)


def _plan(
    checkpoint: Checkpoint,
    destination: Path,
    moves: Sequence[tuple[str, Move]],
    files: Sequence[WeightFile],
    command: ToolCommand,
    model: Mapping[str, object],
    *,
    listed: bool,
) -> ConversionPlan:
    companions = meta_companions(checkpoint)
    only_moves = tuple(move for _, move in moves)
    return ConversionPlan(
        checkpoint,
        destination,
        only_moves,
        tuple(files),
        tuple(companions),
        source_stamps(checkpoint, only_moves, companions),
        has_checklist=listed,
        record=plan_record(checkpoint, command, only_moves, copied_files(companions), model),
    )


def _moves(
    checkpoint: Checkpoint, size: int, dtypes: Mapping[str, str], *, without_output: bool = False
) -> tuple[list[tuple[str, Move]], list[list[TensorSpec]]]:
    """Say which parameter becomes what, under which name, and the tensors of each file.

    The output layer of tied embeddings is written too: the reference's model has one of its own,
    and does not notice if none comes.
    """
    names = stored_names(checkpoint)
    has_stacks = llama4.architecture_of(checkpoint.params) is not None
    if has_stacks:
        names = llama4.in_stack_order(names, checkpoint.params)
    parameters = {name: checkpoint.parameters[name] for name in names}
    if checkpoint.params.tied_embeddings and EMBEDDING in parameters:
        parameters.setdefault(OUTPUT, replace(parameters[EMBEDDING], axis=0))
    if without_output:
        parameters.pop(OUTPUT, None)
    moves = []
    for name, parameter in parameters.items():
        targets = targets_for_size(parameter, checkpoint, size)
        wanted = dtypes.get(parameter.name)
        moves.append((name, make_move(checkpoint, parameter, targets, dtype=wanted)))
    tensors = tensors_by_file(moves, parameters, size)
    if has_stacks:
        tensors = [llama4.stack(shard, checkpoint.params) for shard in tensors]
    return moves, tensors


def _shared_output(shard: Sequence[TensorSpec]) -> TensorSpec:
    embedding = next(tensor for tensor in shard if tensor.name == EMBEDDING)
    return replace(embedding, name=OUTPUT, same_as=EMBEDDING)
