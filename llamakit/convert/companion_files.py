"""The small files next to the weights of a Meta checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from llamakit.checkpoint.capabilities import companion_files
from llamakit.checkpoint.checked_read import describe
from llamakit.checkpoint.checklist import MODEL_CHECKLIST, TOKENIZER_CHECKLIST
from llamakit.checkpoint.generation_config import listed_tokens
from llamakit.checkpoint.layout import EMBEDDING
from llamakit.checkpoint.params import ModelParams, hidden_dim, to_meta_json
from llamakit.checkpoint.provenance import PROVENANCE
from llamakit.checkpoint.rope_scaling import as_config, default_scaling, scaling_of
from llamakit.convert.conversion_plan import SmallFile
from llamakit.convert.model_kind import is_instruct
from llamakit.convert.source_files import (
    GENERATION_CONFIG,
    TOKENIZER,
    copy_of,
    license_files,
    small_files_of,
    tokenizer_companions,
)
from llamakit.errors import PluginError, TokenizerError, UnsupportedModelError
from llamakit.printable import listed
from llamakit.protocols import Checkpoint
from llamakit.tokenizer import tokenizer_json
from llamakit.tokenizer.rank_file import format_ranks
from llamakit.tokenizer.special_tokens import ALL_NAMES

PARAMS = "params.json"
_WEIGHTS = ("consolidated", "model.safetensors", "model-")
"""How the names of files of weights, and of their index, begin."""


def meta_companions(checkpoint: Checkpoint) -> list[SmallFile]:
    """Say which small files are next to the shards of a Meta checkpoint.

    Args:
        checkpoint: what the shards are made from.

    Raises:
        UnsupportedModelError: a params.json cannot say what this model is.
        PluginError: the checkpoint has companion files with the names of others.
    """
    with small_files_of(checkpoint) as (folder, tokenizer):
        files = _meta_companions(checkpoint, folder, tokenizer)
        return [file.read_if_in(folder) for file in files] if folder != checkpoint.path else files


def _meta_companions(
    checkpoint: Checkpoint, folder: Path, tokenizer: Path | None
) -> list[SmallFile]:
    companions: dict[str, Path] = {file.name: file for file in companion_files(checkpoint, "meta")}
    params, path = companions.pop(PARAMS, None), checkpoint.path
    files = [
        copy_of(params, path) if params else SmallFile(PARAMS, params_json(checkpoint)),
        *_tokenizer_model(tokenizer, folder),
    ]
    taken = {file.name for file in files} | {MODEL_CHECKLIST, PROVENANCE}
    beside = tokenizer.parent if tokenizer else folder
    copied = [
        *(copy_of(file, folder) for file in tokenizer_companions(beside)),
        *(copy_of(file, path) for file in license_files(path, tokenizer)),
    ]
    return [
        *files,
        *(file for file in copied if file.name not in companions),
        *(file for file in _generation_config(checkpoint, folder) if file.name not in companions),
        *companion_copies(checkpoint, companions.values(), taken),
    ]


def companion_copies(
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
                f"{describe(checkpoint)} has the companion file {file}, and a conversion writes a "
                f"{file.name} of its own: tell the author of the plugin that opens it"
            )
    return [copy_of(file, checkpoint.path) for file in files]


def _tokenizer_model(tokenizer: Path | None, path: Path) -> list[SmallFile]:
    """Copy a tokenizer.model and its checklist, or make one of the tokenizer.json of a Llama 3.

    What that cannot hold, the added tokens of a fine-tune, is named; the files next to it have it.

    Args:
        tokenizer: as ``find_tokenizer`` returns it.
        path: the folder of the checkpoint.
    """
    if tokenizer is not None and tokenizer.name == TOKENIZER:
        checklist = tokenizer.with_name(TOKENIZER_CHECKLIST)
        return [copy_of(file, path) for file in (tokenizer, checklist) if file.exists()]
    reason = f"no {TOKENIZER} in {path} nor in its parent"
    try:
        ranks = None if tokenizer is None else tokenizer_json.load(tokenizer)
    except TokenizerError as error:
        ranks, reason = None, f"{reason}, and none can be made of what is there ({error})"
    if ranks is None:
        _log().warning("%s: none is written; put it next to the result yourself", reason)
        return []
    if unknown := [added.content for added in ranks.added if added.content not in ALL_NAMES]:
        _log().warning(
            "a %s cannot hold the added tokens %s; they are in the files next to it, which "
            "llamakit reads and Meta's code does not",
            TOKENIZER,
            listed(unknown),
        )
    return [SmallFile(TOKENIZER, format_ranks(ranks.ranks))]


def _generation_config(checkpoint: Checkpoint, folder: Path) -> list[SmallFile]:
    """Copy a generation_config.json, or make one of what a config.json says."""
    path, rows = folder / GENERATION_CONFIG, checkpoint.params.vocab_size
    if path.exists():
        return [copy_of(path, folder)]
    ends = {
        key: listed if len(listed) > 1 else listed[0]
        for key in ("bos_token_id", "eos_token_id")
        if (listed := listed_tokens(folder, key, rows))
    }
    return [SmallFile(GENERATION_CONFIG, (json.dumps(ends) + "\n").encode())] if ends else []


def params_json(checkpoint: Checkpoint) -> bytes:
    """Return the params.json of a checkpoint, made from its numbers.

    Raises:
        UnsupportedModelError: it cannot say what this model is.
    """
    params = _with_factor(checkpoint.params, checkpoint.path)
    # The reference passes max_seq_len itself, and fails on a file that has it too; one of Meta's
    # format that says it anyway keeps it, as a reshard does, which copies that file.
    length = params.max_seq_len if checkpoint.form == "meta" else None
    values = to_meta_json(replace(params, max_seq_len=length))
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


def model_facts(checkpoint: Checkpoint, dtypes: Mapping[str, str]) -> dict[str, object]:
    """Return what no file of a Meta checkpoint says of its model, for llamakit.json.

    Args:
        dtypes: what parameters are cast to, by their names.
    """
    embedding = checkpoint.parameters.get(EMBEDDING)
    facts: dict[str, object] = {"tied_embeddings": checkpoint.params.tied_embeddings}
    if embedding is not None:  # of a part of a model, it may be missing
        dtype = dtypes.get(EMBEDDING, embedding.dtype)
        facts = {"embedding_axis": embedding.axis, **facts, "dtype": dtype}
    return facts | ({"instruct": True} if is_instruct(checkpoint.path) else {})


def _log() -> logging.Logger:
    return logging.getLogger("llamakit")
