"""How much memory a rank needs, worked out from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

from llamakit.checkpoint.capabilities import quantization
from llamakit.checkpoint.dtypes import itemsize
from llamakit.checkpoint.layout import OUTPUT, ROPE_FREQS
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.shard_plan import copies
from llamakit.protocols import Checkpoint, Parameter


@dataclass(frozen=True)
class RankMemory:
    """What each of ``size`` ranks holds, in bytes."""

    size: int
    weights: int
    kv_cache: int


def rank_memory(
    checkpoint: Checkpoint,
    size: int,
    dtype: str,
    max_seq_len: int,
    max_batch_size: int,
    kv_cache: str | None = None,
) -> RankMemory:
    """Work out what one rank holds of a model, its weights as they are stored.

    Args:
        checkpoint: the model.
        size: a valid model parallel size.
        dtype: what is computed in.
        max_seq_len: the longest sequence, in tokens.
        max_batch_size: how many sequences at the same time.
        kv_cache: ``int8`` if keys and values are rounded; None: they are kept in ``dtype``.
    """
    uncounted = {ROPE_FREQS, OUTPUT} if checkpoint.params.tied_embeddings else {ROPE_FREQS}
    weights = sum(
        _nbytes(checkpoint, parameter, size)
        for name, parameter in checkpoint.parameters.items()
        if name not in uncounted
    )
    position = kv_cache_nbytes(checkpoint.params, size, dtype, kv_cache)
    return RankMemory(size, weights, position * max_seq_len * max_batch_size)


def kv_cache_nbytes(params: ModelParams, size: int, dtype: str, kv_cache: str | None = None) -> int:
    """Return how many bytes a rank keeps of one token: its keys and values in every layer."""
    heads = max(1, params.n_kv_heads // size)
    vector = params.head_dim * itemsize(dtype)
    if kv_cache == "int8":
        vector = params.head_dim + itemsize(dtype)  # and its scale
    return 2 * params.n_layers * heads * vector


def _nbytes(checkpoint: Checkpoint, parameter: Parameter, size: int) -> int:
    nbytes = parameter.numel * itemsize(parameter.dtype)
    if quantization(checkpoint) and (kind := quantization(checkpoint, parameter.name)):
        rows = parameter.shape[0]
        nbytes = {"int8": parameter.numel + 4 * rows, "int4": parameter.numel * 5 // 8}[kind]
    if parameter.axis is None:
        return nbytes
    return nbytes * copies(parameter.name, checkpoint.params, size) // size
