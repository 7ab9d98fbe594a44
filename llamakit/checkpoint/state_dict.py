"""Weights that other tools have saved: one file, or a folder that is no checkpoint by its names.

The numbers of the model are next to them, in params.json or config.json, or in the file itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from llamakit.checkpoint.hf_checkpoint import from_state_dict
from llamakit.checkpoint.hf_config import parse_config
from llamakit.checkpoint.hf_weight_files import find_tensors
from llamakit.checkpoint.json_fields import read_json
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT
from llamakit.checkpoint.meta_checkpoint import MetaCheckpoint, open_meta, resolve
from llamakit.checkpoint.params import ModelParams, parse_params, read_params
from llamakit.checkpoint.pth_reader import plain_values
from llamakit.checkpoint.shards import find_shards, loose_files, open_shard
from llamakit.checkpoint.tensor_file import TensorFile
from llamakit.checkpoint.tensor_names import (
    AS_STORED,
    StateDictOptions,
    stripped,
    style_of,
    to_metas,
)
from llamakit.errors import CheckpointError, NotACheckpointError, ParametersError, ParamsError
from llamakit.protocols import Checkpoint


def open_for_import(
    path: Path, options: StateDictOptions, open_checkpoint: Callable[[Path], Checkpoint]
) -> Checkpoint:
    """Open what is to be imported: a checkpoint, or weights that another tool has saved.

    Args:
        path: a folder, or a file of weights.
        options: where in each file the weights are, and what their names lose.
        open_checkpoint: opens a checkpoint of any format, as it is.

    Raises:
        CheckpointError: it is neither, or damaged.
        UnsupportedModelError: it is a model that is not read here.
    """
    if options == AS_STORED:
        is_of_others = path.is_file() or (path.is_dir() and _is_loose(path))
        try:
            return open_checkpoint(path)
        except CheckpointError:
            if not is_of_others:
                raise
    if not path.exists():
        raise NotACheckpointError(f"no such file or folder: {path}")
    if path.is_dir():
        checkpoint = open_meta(path, options) if find_shards(path) else None
        if checkpoint is not None:
            return checkpoint
    return _open_state_dict(path, options)


def _is_loose(path: Path) -> bool:
    return not find_shards(path) and bool(loose_files(path))


def _open_state_dict(path: Path, options: StateDictOptions) -> Checkpoint:
    """Open a file of weights, or all of a folder."""
    folder = path if path.is_dir() else path.parent
    if path.is_file():
        file = open_shard(path, options.key)
        tensors = dict.fromkeys(file.tensors, file)
    else:
        tensors = find_tensors(path, options.key)
    if not tensors:
        raise ParametersError(f"{path} holds no tensor; expected the weights of a model.")
    names = stripped(tensors, options.strip_prefix, str(path))
    style = style_of(names.values())
    rows = _rows(tensors, names)
    params = _read_numbers(folder, next(iter(tensors.values())), rows)
    if style in ("meta", "torchtune", "fairseq2"):
        names = {name: to_metas(new, style) or new for name, new in names.items()}
        return _as_meta(folder, params, tensors, names)
    return from_state_dict(folder, params, tensors, names)


def _as_meta(
    folder: Path, params: ModelParams, tensors: Mapping[str, TensorFile], names: Mapping[str, str]
) -> MetaCheckpoint:
    files = {id(file): file for file in tensors.values()}
    if len(files) != 1:
        raise CheckpointError(
            f"{folder} has {len(files)} files with Meta's names; expected one, or shards called "
            "consolidated.00.pth and so on. Name the file that is meant."
        )
    (file,) = files.values()
    shard = file.renamed({names[name]: tensor for name, tensor in file.tensors.items()})
    params, axis = resolve(params, folder, [shard])
    return MetaCheckpoint(folder, params, [shard], axis)


def _rows(tensors: Mapping[str, TensorFile], names: Mapping[str, str]) -> int | None:
    """Return how many rows the output layer or the embedding has, whosever its name."""
    wanted = (OUTPUT, "lm_head.weight", EMBEDDING, "model.embed_tokens.weight")
    stored = {new: tensors[name].tensors[name] for name, new in names.items()}
    shapes = (stored[name].shape for name in wanted if name in stored)
    return next((shape[0] for shape in shapes if len(shape) == 2), None)


def _read_numbers(folder: Path, file: TensorFile, rows: int | None) -> ModelParams:
    """Read the numbers of a model from next to its weights, or from the file of a trainer."""
    config, params = folder / "config.json", folder / "params.json"
    if params.exists():
        return parse_params(read_params(params), params, vocab_size=rows)
    if config.exists():
        return parse_config(read_json(config), config)
    for values in plain_values(file.path):
        if {"dim", "n_layers", "n_heads"} <= values.keys():
            return replace(parse_params(values, file.path, vocab_size=rows), max_seq_len=None)
    raise ParamsError(
        f"{file.path} has neither params.json nor config.json next to it, so the numbers of the "
        'model are not known. Write one: {"dim": 4096, "n_layers": 32, "n_heads": 32, '
        '"vocab_size": -1, "multiple_of": 256, "norm_eps": 1e-05} are those of Llama 2 7B.'
    )
