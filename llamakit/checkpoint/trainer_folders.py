"""Folders that torchtune and fairseq2 have saved with names of their own.

What torchtune saves for Hugging Face has Hugging Face's names, and is opened as that.

Source: torchtune's ``training/checkpointing/_checkpointer.py``; fairseq2's
``model_checkpoint/native.py`` and ``common.py`` (``reshard_tensor``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from llamakit.checkpoint.chunked_tensor import (
    Chunk,
    ChunkedTensor,
    join_chunks,
    stored_chunk,
    whole_tensor,
)
from llamakit.checkpoint.hf_weight_files import STANDARD_NAMES, join_files
from llamakit.checkpoint.layout import EMBEDDING, axis_of
from llamakit.checkpoint.named_tensors import NamedTensors, find_numbers, open_named_tensors
from llamakit.checkpoint.shards import find_shards, loose_files, open_shard
from llamakit.checkpoint.tensor_file import TensorFile
from llamakit.checkpoint.tensor_names import from_fairseq2, style_of
from llamakit.errors import CheckpointError, MissingShardError, ParametersError
from llamakit.printable import listed

_METAS_FILE = re.compile(r"meta_model_[0-9]+\.pt")
"""What torchtune calls weights with Meta's names."""
_KEY = "model"
_QUERY = ".self_attn.q_proj.weight"
"""A parameter whose rows alone are split, so that it is as wide as the model."""
_RANKS = re.compile(r"pp_([0-9]{1,4})/tp_([0-9]{1,4})/sdp_([0-9]{1,4})\.(pt|safetensors)")

Ranks = Sequence[Sequence[TensorFile]]
"""Of one stage of a pipeline: by rank of tensor parallelism, then by rank of FSDP."""


def open_trainer_folder(path: Path) -> NamedTensors | None:
    """Open a folder of torchtune or fairseq2, with params.json or config.json in it or above it.

    Returns:
        The checkpoint, or None if the folder is in another format.

    Raises:
        MissingShardError: the file of a rank is absent.
        DamagedFileError: a file is damaged.
        ParametersError: it holds no single Llama.
        ParamsError: the numbers of the model are wrong.
    """
    if not path.is_dir() or find_shards(path):
        return None
    for folder in (path, path / "model"):
        if (folder / "pp_00").is_dir():
            return open_named_tensors(path, "fairseq2", _join_ranks(folder))
    if any((path / name).exists() for name in STANDARD_NAMES) or find_numbers(path) is None:
        return None
    files = loose_files(path)
    try:
        tensors = join_files([_open(file) for file in files])
    except CheckpointError:
        return None  # whoever opens the folder next says what it is
    style = style_of(tensors) if tensors else None
    if style == "meta" and all(_METAS_FILE.fullmatch(file.name) for file in files):
        style = "torchtune"
    if style not in ("torchtune", "fairseq2"):
        return None
    whole = {name: whole_tensor(file, name) for name, file in tensors.items()}
    return open_named_tensors(path, style, whole)


def _open(path: Path) -> TensorFile:
    """Open a file whose weights are all that it holds, or are under ``model``."""
    try:
        return open_shard(path)
    except ParametersError:
        return open_shard(path, _KEY)


def _join_ranks(folder: Path) -> dict[str, ChunkedTensor]:
    """Put the tensors of all ranks together; each stage of a pipeline holds layers of its own."""
    tensors: dict[str, ChunkedTensor] = {}
    for stage in _stages(folder):
        for name in dict.fromkeys(
            name for ranks in stage for file in ranks for name in file.tensors
        ):
            if name in tensors:
                raise ParametersError(
                    f"{folder}: two stages of the pipeline hold {listed([name])}."
                )
            tensors[name] = _join(name, stage)
    return tensors


def _stages(folder: Path) -> list[Ranks]:
    """Open the files of all ranks, by stage, tensor-parallel rank and FSDP rank."""
    found: dict[tuple[int, int, int], Path] = {}
    for path in folder.glob("pp_*/tp_*/sdp_*"):
        if match := _RANKS.fullmatch(path.relative_to(folder).as_posix()):
            found[int(match[1]), int(match[2]), int(match[3])] = path
    sizes = [1 + max((ranks[axis] for ranks in found), default=-1) for axis in range(3)]
    if not found or sizes[0] * sizes[1] * sizes[2] != len(found):
        raise MissingShardError(
            f"{folder} has {len(found)} files of ranks, pp_00/tp_00/sdp_00.pt and so on; expected "
            f"{' × '.join(map(str, sizes))}, as their numbers say. Bring them all."
        )
    return [
        [[_open(found[pp, tp, sdp]) for sdp in range(sizes[2])] for tp in range(sizes[1])]
        for pp in range(sizes[0])
    ]


def _join(name: str, ranks: Ranks) -> ChunkedTensor:
    """Put a tensor together: FSDP splits on rows what tensor parallelism left of it."""
    held = [[file for file in files if name in file.tensors] for files in ranks]
    held = [files for files in held if files]
    shapes = [file.tensors[name].shape for files in held for file in files]
    axis = _axis(name, shapes[0], ranks)
    axes = {len(shape) for shape in shapes}
    if len(axes) > 1 or (axis is not None and axis not in range(min(axes))):
        raise ParametersError(
            f"{held[0][0].path}: the ranks have {listed([name])} of the shapes "
            f"{listed([str(shape) for shape in shapes])}, which make up no parameter of a Llama. "
            "Bring the files of one save."
        )
    chunks: list[Chunk] = []
    ends = [0] * len(shapes[0])
    for files in held if axis is not None else held[:1]:
        begin = [end if at == axis else 0 for at, end in enumerate(ends)]
        for file in files:
            chunk = stored_chunk(file, name, tuple(begin))
            chunks.append(chunk)
            ends = [at + length for at, length in zip(begin, chunk.shape, strict=True)]
            begin[:1] = ends[:1]
    return join_chunks(name, tuple(ends), chunks[0].stored.dtype, chunks)


def _axis(name: str, shape: tuple[int, ...], ranks: Ranks) -> int | None:
    """Say on which axis tensor parallelism has split a tensor; None: every rank has the whole."""
    meta = from_fairseq2(name)
    if len(ranks) == 1 or meta is None:
        return None
    if meta != EMBEDDING:
        return axis_of(meta, 0)
    queries = (it.shape for its, it in ranks[0][0].tensors.items() if its.endswith(_QUERY))
    return 0 if shape[-1:] == next(queries, ())[-1:] else 1
