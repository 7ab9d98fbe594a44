"""Detects which generation of Llama a checkpoint is of, from its files."""

from __future__ import annotations

import re
from pathlib import Path

from llamakit.checkpoint.json_fields import read_json
from llamakit.checkpoint.params import CODE_LLAMA_THETA, ModelParams
from llamakit.errors import ParamsError
from llamakit.files.regular_file import open_regular

ORIGIN = "reshard.json"
"""Written next to shards that llamakit made: their source, and how the embedding is split."""
LLAMA_3_VOCAB = 128256
LLAMA_3_THETA = 500000.0
LARGEST_3_2_DIM = 3072
"""Llama 3.2's text models, 1B and 3B, are no wider; all others of 3.1 and later are."""
_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} [0-9]+\r?\n")


def embedding_axis(
    shard_shape: tuple[int, ...] | None, params: ModelParams, shards: int, path: Path
) -> int:
    """Find the axis on which the embedding is split.

    Several shards show it by their shape. One shard does not: there, the ``reshard.json`` of
    whoever made it says it, or else Llama 3 is recognised.

    Args:
        shard_shape: shape of ``tok_embeddings.weight`` in one shard, if there is one.
        params: the numbers of the model.
        shards: how many shards there are.
        path: the folder of the checkpoint; the tokenizer is in it or one above.
    Returns:
        1 for Llama 1, 2 and Code Llama, 0 for Llama 3.
    """
    if shards > 1 and shard_shape is not None and len(shard_shape) == 2:
        return 0 if shard_shape[1] == params.dim else 1
    marked = _marked_axis(path / ORIGIN)
    if marked is not None:
        return marked
    return 0 if looks_like_llama_3(params, path) else 1


def _marked_axis(path: Path) -> int | None:
    """Return the axis that a reshard.json says, if there is one and it does."""
    try:
        axis = read_json(path).get("embedding_axis")
    except ParamsError:
        return None
    return axis if type(axis) is int and axis in (0, 1) else None


def looks_like_llama_3(params: ModelParams, path: Path) -> bool:
    """Say whether a model is a Llama 3: by its vocabulary, its rotary base or its tokenizer.

    Args:
        params: the numbers of the model.
        path: the folder of the checkpoint; the tokenizer is in it or one above.
    """
    return (
        params.vocab_size == LLAMA_3_VOCAB
        or params.use_scaled_rope
        or params.rope_theta == LLAMA_3_THETA
        or any(is_tiktoken(folder / "tokenizer.model") for folder in (path, path.parent))
    )


def is_tiktoken(path: Path) -> bool:
    """Say whether a tokenizer file is Llama 3's: lines of base64 and a rank."""
    try:
        with open_regular(path) as file:
            return _TIKTOKEN_LINE.match(file.readline(1024)) is not None
    except OSError:
        return False


def generation_name(params: ModelParams, axis: int) -> str:
    """Name the generation: ``llama 3``, ``code llama`` or ``llama 1/2``.

    Args:
        params: the numbers of the model.
        axis: the axis on which the embedding is split.
    """
    if axis == 0:
        return "llama 3"
    return "code llama" if params.rope_theta == CODE_LLAMA_THETA else "llama 1/2"


def scaled_rope(params: ModelParams) -> dict[str, object]:
    """Say in full what ``use_scaled_rope`` means; a params.json has no factor.

    It is 32 in Llama 3.2 1B and 3B, which are the only ones as narrow, and 8 in 3.1 and 3.3.
    """
    return {
        "rope_type": "llama3",
        "factor": 32.0 if params.dim <= LARGEST_3_2_DIM else 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
