"""The small files of a Hugging Face folder: config, generation config and tokenizer."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from llamakit.checkpoint.families import LLAMA_3, LLAMA_4
from llamakit.checkpoint.layout import EMBEDDING
from llamakit.checkpoint.llama_generation import family_of
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.rope_scaling import as_config, default_scaling
from llamakit.convert.companion_files import check_copied
from llamakit.convert.hf_tokenizer import (
    special_tokens_map,
    token_id,
    tokenizer_config,
    tokenizer_json,
)
from llamakit.convert.llama4_names import llama4_config
from llamakit.convert.sentencepiece_model import SentencePieceModel, read_sentencepiece_model
from llamakit.errors import TokenizerError
from llamakit.files.regular_file import read_bytes
from llamakit.protocols import Checkpoint
from llamakit.tokenizer.rank_file import is_rank_file
from llamakit.tokenizer.sentencepiece import load
from llamakit.tokenizer.special_tokens import special_tokens

_SPECIAL_TOKENS = (LLAMA_3.special_tokens, LLAMA_4.special_tokens)
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
)
HF_FILES = ("config.json", "generation_config.json", *_TOKENIZER_FILES)
"""What ``write_hf_files`` writes, or some of it."""


def write_hf_files(checkpoint: Checkpoint, destination: Path, tokenizer: Path | None) -> list[str]:
    """Write all files of a Hugging Face folder but the weights and their index.

    The same checkpoint and tokenizer give the same bytes. Nothing is written if an error is raised.

    Args:
        checkpoint: what config.json describes.
        destination: a folder that is there.
        tokenizer: a tokenizer.model or a tokenizer.json. A tiktoken model, as Llama 3 has it, is
            copied as it is: no tokenizer.json is made of it, and a warning says so if none is
            beside it.
    Returns:
        The names of the files, in the order written.
    Raises:
        TokenizerError: the tokenizer is another model's, or does what no tokenizer.json says.
    """
    model = _read_sentencepiece(checkpoint, tokenizer)
    ends = _ends(checkpoint, model, tokenizer)
    context = context_length(checkpoint)
    files = {
        "config.json": _json(config(checkpoint) | ends),
        "generation_config.json": _json({**ends, "max_length": context}),
    }
    if tokenizer is None:
        _log().warning(
            "%s has no tokenizer, so what is written has none; pass one with --tokenizer",
            checkpoint.path,
        )
    elif model is not None:
        files |= {
            "tokenizer.json": _json(tokenizer_json(model), indent=None),
            "tokenizer_config.json": _json(tokenizer_config(model, context)),
            "special_tokens_map.json": _json(special_tokens_map(model)),
            "tokenizer.model": read_bytes(tokenizer),
        }
    else:
        files |= _copies(tokenizer)
    for name, data in files.items():
        (destination / name).write_bytes(data)
    return list(files)


def config(checkpoint: Checkpoint) -> dict[str, object]:
    """Say what a config.json for this checkpoint holds, without the first and last token IDs.

    The settings of the rotary embedding and the dtype have two spellings, that of
    transformers 5 and that of those before.

    Source: transformers ``models/llama/configuration_llama.py``.
    """
    params = checkpoint.params
    dtype = _dtype(checkpoint)
    scaling = rope_scaling(params)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": params.vocab_size,
        "hidden_size": params.dim,
        "intermediate_size": params.hidden_dim,
        "num_hidden_layers": params.n_layers,
        "num_attention_heads": params.n_heads,
        "num_key_value_heads": params.n_kv_heads,
        "head_dim": params.head_dim,
        "max_position_embeddings": context_length(checkpoint),
        "rms_norm_eps": params.norm_eps,
        "rope_parameters": {
            "rope_theta": params.rope_theta,
            **(scaling or {"rope_type": "default"}),
        },
        "rope_theta": params.rope_theta,
        "rope_scaling": scaling,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "pretraining_tp": 1,
        "tie_word_embeddings": params.tied_embeddings,
        "use_cache": True,
        "dtype": dtype,
        "torch_dtype": dtype,
        **llama4_config(params),
    }


def context_length(checkpoint: Checkpoint) -> int:
    """Say how many tokens a model was made for: what its file says, else by its family."""
    return replace(checkpoint.params, family=family_of(checkpoint).name).context


def rope_scaling(params: ModelParams) -> dict[str, object] | None:
    """Say how the rotary frequencies are stretched, or None if they are not.

    A Hugging Face config.json says it in full, a params.json only that it is so.
    """
    factor = {} if params.rope_factor is None else {"factor": params.rope_factor}
    if params.rope_scaling is not None:
        kept = {key: value for key, value in params.rope_scaling.items() if key != "rope_theta"}
        return kept | factor
    return as_config(default_scaling(params)) | factor if params.use_scaled_rope else None


def _dtype(checkpoint: Checkpoint) -> str:
    """Name the dtype of the matrices; norms may be finer."""
    widest = max(checkpoint.parameters.values(), key=lambda parameter: parameter.numel)
    return checkpoint.parameters.get(EMBEDDING, widest).dtype


def _ends(
    checkpoint: Checkpoint, model: SentencePieceModel | None, tokenizer: Path | None
) -> dict[str, object]:
    """Name the token IDs that begin and end a string.

    A Llama 3 or 4 ends a string, a message or a turn; the base models write only the first.
    """
    if model is not None:
        return {
            "bos_token_id": token_id(model, model.bos_piece),
            "eos_token_id": token_id(model, model.eos_piece),
        }
    params, family = checkpoint.params, family_of(checkpoint)
    if not family.special_tokens:
        return {"bos_token_id": 1, "eos_token_id": 2}
    # A vocabulary larger than the family's is padded.
    ranks = min(params.vocab_size, family.vocabularies.start) - family.special_tokens
    if tokenizer is not None and is_rank_file(tokenizer):
        lines = sum(1 for line in read_bytes(tokenizer).splitlines() if line.strip())
        if params.vocab_size - lines in _SPECIAL_TOKENS:
            ranks = lines
    special = special_tokens(ranks, params.vocab_size, params.use_scaled_rope)
    return {"bos_token_id": ranks, "eos_token_id": [ranks + offset for offset in special.stops]}


def _read_sentencepiece(checkpoint: Checkpoint, path: Path | None) -> SentencePieceModel | None:
    """Read the tokenizer if it is a SentencePiece model, and check that it is this model's."""
    if path is None:
        return None
    if not path.exists():
        raise TokenizerError(f"no such tokenizer file: {path}; pass one with --tokenizer")
    if path.suffix == ".json" or is_rank_file(path):
        return None
    load(path)  # what SentencePiece itself does not load is refused in its words
    model = read_sentencepiece_model(path)
    rows = checkpoint.params.vocab_size
    if len(model.pieces) > rows:
        raise TokenizerError(
            f"{path} has {len(model.pieces)} tokens but the embedding of {checkpoint.path} has "
            f"{rows} rows: it is the tokenizer of another model; pass the right one with "
            "--tokenizer"
        )
    return model


def _copies(tokenizer: Path) -> dict[str, bytes]:
    """Take a tokenizer that is not a SentencePiece model as it is, with the files next to it."""
    given = "tokenizer.json" if tokenizer.suffix == ".json" else "tokenizer.model"
    beside = {name: tokenizer.parent / name for name in _TOKENIZER_FILES}
    files = {name: path for name, path in (beside | {given: tokenizer}).items() if path.exists()}
    for path in files.values():
        if path != tokenizer:
            check_copied(path, tokenizer.parent)
    if "tokenizer.json" not in files:
        _log().warning(
            "%s is a tiktoken model and is copied as it is; AutoTokenizer needs a tokenizer.json "
            "beside it, which comes with the model's Hugging Face folder",
            tokenizer,
        )
    return {name: read_bytes(path) for name, path in files.items()}


def _json(values: Mapping[str, object], indent: int | None = 2) -> bytes:
    return (json.dumps(values, ensure_ascii=False, indent=indent) + "\n").encode()


def _log() -> logging.Logger:
    return logging.getLogger("llamakit")
