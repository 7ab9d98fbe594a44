"""Plans for Meta's format: any number of shards, from a checkpoint of any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from llamakit.checkpoint.capabilities import model_parallel_size, stored_names
from llamakit.checkpoint.file_layout import FileLayout, TensorSpec
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, check_parameters
from llamakit.checkpoint.pth_writer import PthLayout
from llamakit.checkpoint.safetensors_writer import SafetensorsLayout
from llamakit.checkpoint.shard_plan import check_size
from llamakit.convert.companion_files import meta_companions
from llamakit.convert.conversion_plan import ConversionPlan, SmallFile, source_stamps
from llamakit.convert.moves import Move, WeightFile, make_move, targets_for_size, tensors_by_file
from llamakit.protocols import Checkpoint


def plan_shards(
    checkpoint: Checkpoint, destination: Path, size: int, *, dtype: str | None = None
) -> ConversionPlan:
    """Plan a folder of ``size`` shards in Meta's format.

    The parameters keep the order that the source's shards have them in, so each of these is read
    from its beginning to its end.

    Args:
        checkpoint: what is read.
        destination: where the folder is to appear.
        size: the model parallel size.
        dtype: what weights are cast to, or None.

    Raises:
        UnevenSplitError: the model cannot be split into so many shards.
        ParametersError: parameters are missing, or are of another model.
        UnsupportedModelError: Meta's format cannot hold this model.
        OptionError: weights are not cast to ``dtype``.
    """
    check_parameters(checkpoint)
    check_size(checkpoint.params, size)
    tied = _shares_output(checkpoint)
    moves = _moves(checkpoint, size, dtype, without_output=tied)
    tensors = tensors_by_file(moves, checkpoint.parameters, size)
    if tied:
        tensors = [[*shard, _shared_output(shard)] for shard in tensors]
    stems = [f"consolidated.{rank:02d}" for rank in range(size)]
    layouts = [PthLayout(stem, shard) for stem, shard in zip(stems, tensors, strict=True)]
    companions = meta_companions(checkpoint, size, dtype)
    return _plan(checkpoint, destination, moves, stems, ".pth", layouts, companions, listed=True)


def plan_safetensors(checkpoint: Checkpoint, destination: Path) -> ConversionPlan:
    """Plan Meta's parameters as .safetensors, a file for each shard.

    Raises: as ``plan_shards``.
    """
    check_parameters(checkpoint)
    size = model_parallel_size(checkpoint)
    moves = _moves(checkpoint, size, None)
    tensors = tensors_by_file(moves, checkpoint.parameters, size)
    stems = [f"consolidated.{rank:02d}" for rank in range(size)]
    layouts = [SafetensorsLayout(shard) for shard in tensors]
    companions = meta_companions(checkpoint, size, None)
    return _plan(
        checkpoint, destination, moves, stems, ".safetensors", layouts, companions, listed=False
    )


def _plan(
    checkpoint: Checkpoint,
    destination: Path,
    moves: Sequence[tuple[str, Move]],
    stems: Sequence[str],
    suffix: str,
    layouts: Sequence[FileLayout],
    companions: Sequence[SmallFile],
    *,
    listed: bool,
) -> ConversionPlan:
    names = [stem + suffix for stem in stems]
    only_moves = tuple(move for _, move in moves)
    return ConversionPlan(
        checkpoint,
        destination,
        only_moves,
        tuple(WeightFile(name, layout) for name, layout in zip(names, layouts, strict=True)),
        tuple(companions),
        source_stamps(checkpoint, only_moves, companions),
        has_checklist=listed,
    )


def _moves(
    checkpoint: Checkpoint, size: int, dtype: str | None, *, without_output: bool = False
) -> list[tuple[str, Move]]:
    """Say which parameter becomes what, under which name."""
    moves = []
    for name in stored_names(checkpoint):
        parameter = checkpoint.parameters[name]
        if name == OUTPUT and without_output:
            continue
        targets = targets_for_size(parameter, checkpoint, size)
        moves.append((name, make_move(checkpoint, parameter, targets, dtype=dtype)))
    if checkpoint.params.tied_embeddings and not without_output and _lacks_output(checkpoint):
        # The reference's model has an output layer of its own, and does not notice if none comes.
        embedding = replace(checkpoint.parameters[EMBEDDING], axis=0)
        targets = targets_for_size(embedding, checkpoint, size)
        moves.append((OUTPUT, make_move(checkpoint, embedding, targets, dtype=dtype)))
    return moves


def _shares_output(checkpoint: Checkpoint) -> bool:
    """Say whether the output layer is the embedding, and split alike, so that both are stored once.

    A Meta checkpoint that leaves the output layer out stays as it is.
    """
    if not checkpoint.params.tied_embeddings or checkpoint.parameters[EMBEDDING].axis != 0:
        return False
    return OUTPUT in checkpoint.parameters or checkpoint.form != "meta"


def _lacks_output(checkpoint: Checkpoint) -> bool:
    return OUTPUT not in checkpoint.parameters and checkpoint.form != "meta"


def _shared_output(shard: Sequence[TensorSpec]) -> TensorSpec:
    embedding = next(tensor for tensor in shard if tensor.name == EMBEDDING)
    return replace(embedding, name=OUTPUT, same_as=EMBEDDING)
