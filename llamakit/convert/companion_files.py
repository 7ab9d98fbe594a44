"""The small files beside the weights of a Meta checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from llamakit._version import __version__
from llamakit.checkpoint.hf_checkpoint import HuggingFaceCheckpoint
from llamakit.checkpoint.layout import EMBEDDING
from llamakit.checkpoint.llama_generation import ORIGIN, scaled_rope
from llamakit.checkpoint.meta_checkpoint import MetaCheckpoint
from llamakit.checkpoint.params import ModelParams, hidden_dim, to_meta_json
from llamakit.convert.conversion_plan import SmallFile
from llamakit.errors import UnsupportedModelError
from llamakit.protocols import Checkpoint

TOKENIZER = "tokenizer.model"
_TOKENIZER_LIST = "tokenizer_checklist.chk"


def meta_companions(checkpoint: Checkpoint, size: int, dtype: str | None) -> list[SmallFile]:
    """Say which small files stand beside the shards of a Meta checkpoint.

    Args:
        checkpoint: what the shards are made from.
        size: how many shards there are.
        dtype: what weights are cast to, or None.

    Raises:
        UnsupportedModelError: a params.json cannot say what this model is.
    """
    return [
        SmallFile("params.json", params_json(checkpoint)),
        *tokenizer_files(checkpoint.path),
        SmallFile(ORIGIN, _origin(checkpoint, size, dtype)),
    ]


def find_tokenizer_file(path: Path) -> Path | None:
    """Find a checkpoint's tokenizer.model in its folder or in the one above."""
    for folder in (path, path.resolve().parent):
        if (folder / TOKENIZER).is_file():
            return folder / TOKENIZER
    return None


def tokenizer_files(path: Path) -> list[SmallFile]:
    """Say which files of the tokenizer are copied; warn if there is none."""
    tokenizer = find_tokenizer_file(path)
    if tokenizer is None:
        logging.getLogger("llamakit").warning(
            "no %s in %s nor in its parent: none is copied; put it beside the result yourself",
            TOKENIZER,
            path,
        )
        return []
    beside = tokenizer.with_name(_TOKENIZER_LIST)
    found = [tokenizer, beside] if beside.is_file() else [tokenizer]
    return [SmallFile(file.name, file) for file in found]


def params_json(checkpoint: Checkpoint) -> bytes:
    """Return the params.json of a checkpoint: Meta's own file where there is one.

    Raises:
        UnsupportedModelError: it cannot say what this model is.
    """
    if type(checkpoint) is MetaCheckpoint:
        return (checkpoint.path / "params.json").read_bytes()
    params = checkpoint.params
    _check_scaling(params, checkpoint.path)
    # The reference passes max_seq_len itself, and fails on a file that has it too.
    values = to_meta_json(replace(params, max_seq_len=None))
    _check_hidden(params, values, checkpoint.path)
    return (json.dumps(values) + "\n").encode()


def _check_scaling(params: ModelParams, path: Path) -> None:
    scaling = params.rope_scaling
    if scaling is None:
        return
    expected = {key: value for key, value in scaled_rope(params).items() if key != "rope_type"}
    if params.use_scaled_rope and all(scaling.get(key) == expected[key] for key in expected):
        return
    raise UnsupportedModelError(
        f"{path}: its rotary embedding is scaled in a way that no params.json can say "
        f"({json.dumps(dict(scaling))}); expected none, or Llama 3.1's: {json.dumps(expected)}."
    )


def _check_hidden(params: ModelParams, values: Mapping[str, object], path: Path) -> None:
    multiple_of, multiplier = values["multiple_of"], values.get("ffn_dim_multiplier")
    assert isinstance(multiple_of, int)
    assert multiplier is None or isinstance(multiplier, float)
    if hidden_dim(params.dim, multiple_of, multiplier) != params.hidden_dim:
        raise UnsupportedModelError(
            f"{path}: no params.json gives feed-forward layers {params.hidden_dim} wide for a "
            f"width of {params.dim}, so Meta's form cannot hold this model."
        )


def _origin(checkpoint: Checkpoint, size: int, dtype: str | None) -> bytes:
    """Say what the shards were made from; the same whenever and wherever it is done."""
    embedding = checkpoint.parameters[EMBEDDING]
    values = {
        "made_by": f"llamakit {__version__}",
        "from": {
            "folder": checkpoint.path.resolve().name,
            "form": checkpoint.form,
            "files": [
                {"name": path.name, "nbytes": nbytes} for path, nbytes in source_files(checkpoint)
            ],
        },
        "model_parallel_size": size,
        "embedding_axis": embedding.axis,
        "dtype": dtype or embedding.dtype,
    }
    return (json.dumps(values, indent=2) + "\n").encode()


def source_files(checkpoint: Checkpoint) -> list[tuple[Path, int]]:
    """List the files of weights of a checkpoint and their sizes; none of a form not known here."""
    if type(checkpoint) is MetaCheckpoint:
        return [(shard.path, shard.nbytes) for shard in checkpoint.shards]
    if type(checkpoint) is HuggingFaceCheckpoint:
        files = {file.path: file.nbytes for file, _ in checkpoint.sources.values()}
        return sorted(files.items())
    return []
