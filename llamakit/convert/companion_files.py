"""The small files next to the weights of a Meta checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from llamakit._distribution import __version__
from llamakit.checkpoint.capabilities import companion_files, weight_files
from llamakit.checkpoint.checked_read import describe
from llamakit.checkpoint.checklist import MODEL_CHECKLIST
from llamakit.checkpoint.layout import EMBEDDING
from llamakit.checkpoint.llama_generation import ORIGIN
from llamakit.checkpoint.params import ModelParams, hidden_dim, to_meta_json
from llamakit.checkpoint.rope_scaling import as_config, default_scaling, scaling_of
from llamakit.convert.conversion_plan import SmallFile
from llamakit.errors import PluginError, UnsupportedModelError
from llamakit.files.links import leads_outside
from llamakit.files.regular_file import check_regular
from llamakit.protocols import Checkpoint

PARAMS = "params.json"
TOKENIZER = "tokenizer.model"
_WEIGHTS = ("consolidated", "model.safetensors", "model-")
"""How the names of files of weights, and of their index, begin."""
_TOKENIZER_LIST = "tokenizer_checklist.chk"


def meta_companions(checkpoint: Checkpoint, size: int, dtype: str | None) -> list[SmallFile]:
    """Say which small files are next to the shards of a Meta checkpoint.

    Args:
        checkpoint: what the shards are made from.
        size: how many shards there are.
        dtype: what weights are cast to, or None.

    Raises:
        UnsupportedModelError: a params.json cannot say what this model is.
        PluginError: the checkpoint has files carried along that have other files' names.
    """
    carried: dict[str, Path] = {it.name: it for it in companion_files(checkpoint, "meta")}
    params = carried.pop(PARAMS, None)
    files = [
        _copy(params, checkpoint.path) if params else SmallFile(PARAMS, params_json(checkpoint)),
        *tokenizer_files(checkpoint.path),
        SmallFile(ORIGIN, _origin(checkpoint, size, dtype)),
    ]
    taken = {file.name for file in files} | {MODEL_CHECKLIST}
    return [*files, *carried_files(checkpoint, carried.values(), taken)]


def carried_files(
    checkpoint: Checkpoint, files: Iterable[Path], taken: Collection[str]
) -> list[SmallFile]:
    """Say which files of a format of its own are copied next to the weights.

    Args:
        files: as ``companion_files`` lists them.
        taken: the names of the files that the conversion writes, those of weights aside.

    Raises:
        PluginError: a file has the name of one that the conversion writes.
    """
    for file in files:
        if file.name in taken or file.name.startswith(_WEIGHTS):
            raise PluginError(
                f"{describe(checkpoint)} has {file} carried along, and the conversion writes a "
                f"{file.name} of its own: tell the author of the plugin that opens it"
            )
    return [_copy(file, checkpoint.path) for file in files]


def check_copied(file: Path, checkpoint: Path) -> None:
    """Check a file that is copied as it is; warn if a link leads it out of the checkpoint.

    Whoever made the checkpoint chose where the link leads, and whoever gets the copy can read what
    is there.

    Args:
        checkpoint: its folder.
    Raises:
        NotRegularFileError: it is a FIFO, a socket, a device or a folder.
    """
    check_regular(file, file.stat())
    if outside := leads_outside(file, checkpoint):
        logging.getLogger("llamakit").warning(
            "%s is a link to %s, outside of the checkpoint; what is there is copied. If that is no "
            "file of the model, remove the copy",
            file,
            outside,
        )


def _copy(file: Path, checkpoint: Path) -> SmallFile:
    check_copied(file, checkpoint)
    return SmallFile(file.name, file)


def find_tokenizer_file(path: Path) -> Path | None:
    """Find a checkpoint's tokenizer.model in its folder or in the one above."""
    for folder in (path, path.resolve().parent):
        if (folder / TOKENIZER).exists():
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
    files = [tokenizer, beside] if beside.exists() else [tokenizer]
    return [_copy(file, path) for file in files]


def params_json(checkpoint: Checkpoint) -> bytes:
    """Return the params.json of a checkpoint, made from its numbers.

    Raises:
        UnsupportedModelError: it cannot say what this model is.
    """
    params = _with_factor(checkpoint.params, checkpoint.path)
    # The reference passes max_seq_len itself, and fails on a file that has it too.
    values = to_meta_json(replace(params, max_seq_len=None))
    _check_hidden(params, values, checkpoint.path)
    return (json.dumps(values) + "\n").encode()


def _with_factor(params: ModelParams, path: Path) -> ModelParams:
    """Return the params with the factor of a scaling that their shape does not imply.

    Raises:
        UnsupportedModelError: the rotary embedding is scaled in a way that no params.json says.
    """
    scaling = scaling_of(params, path)
    if scaling is None:
        return params
    expected = default_scaling(params)
    if scaling == expected:
        return replace(params, rope_factor=None)
    if replace(scaling, factor=expected.factor) == expected:
        return replace(params, rope_factor=scaling.factor)
    raise UnsupportedModelError(
        f"{path}: its rotary embedding is scaled in a way that no params.json can say "
        f"({json.dumps(as_config(scaling))}); expected none, or Llama 3.1's with any factor: "
        f"{json.dumps(as_config(expected))}."
    )


def _check_hidden(params: ModelParams, values: Mapping[str, object], path: Path) -> None:
    multiple_of, multiplier = values["multiple_of"], values.get("ffn_dim_multiplier")
    assert isinstance(multiple_of, int)
    assert multiplier is None or isinstance(multiplier, float)
    if hidden_dim(params.dim, multiple_of, multiplier) != params.hidden_dim:
        raise UnsupportedModelError(
            f"{path}: no params.json gives feed-forward layers {params.hidden_dim} wide for a "
            f"width of {params.dim}, so Meta's format cannot hold this model."
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
                {"name": path.name, "nbytes": path.stat().st_size}
                for path in weight_files(checkpoint)
            ],
        },
        "model_parallel_size": size,
        "embedding_axis": embedding.axis,
        "tied_embeddings": checkpoint.params.tied_embeddings,
        "dtype": dtype or embedding.dtype,
    }
    return (json.dumps(values, indent=2) + "\n").encode()
