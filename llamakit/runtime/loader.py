"""Loads the slice of one rank from a checkpoint of any number of shards.

Each rank reads its own bytes only, and packs each weight as it is read. A weight is freed before
the next one is read, so there are never two copies of the model in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from llamakit.checkpoint.checked_read import read_checked
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, layer_shapes
from llamakit.checkpoint.llama4 import architecture_of
from llamakit.checkpoint.model_support import check_loadable
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.rope_scaling import scaling_of
from llamakit.checkpoint.rounding import fits_int4, kinds_of
from llamakit.checkpoint.shard_plan import slice_for_rank
from llamakit.protocols import Checkpoint, Parameter, Quantization
from llamakit.runtime import llama4_layers
from llamakit.runtime.attention import Attention
from llamakit.runtime.host_memory import trim
from llamakit.runtime.kernels.choice import Packer
from llamakit.runtime.kernels.quantized import to_int8
from llamakit.runtime.kernels.rounded import Rounded, Weight
from llamakit.runtime.linear import Layers, ParallelLayers, PlainLayers
from llamakit.runtime.model import Block, FeedForward, RMSNorm, Transformer
from llamakit.runtime.rope import frequencies
from llamakit.runtime.stored_weights import (
    as_output,
    read_ahead,
    read_rounded,
    round_groups,
    round_slice,
    takes_stored,
    to_torch,
)

ATTENTION = tuple(f"attention.{name}.weight" for name in ("wq", "wk", "wv", "wo"))
FEED_FORWARD = tuple(f"feed_forward.{name}.weight" for name in ("w1", "w3", "w2"))
NORMS = ("attention_norm.weight", "ffn_norm.weight")

PACKERS = 4
"""How many weights of a layer are packed at the same time: most operators pack on one thread."""

T = TypeVar("T")


def load(
    checkpoint: Checkpoint,
    *,
    rank: int = 0,
    size: int = 1,
    dtype: torch.dtype,
    device: torch.device,
    packer: Packer | None = None,
    rope_factor: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Transformer:
    """Build the model that one rank holds.

    Args:
        rank: which slice, of ``size``.
        packer: chooses the kernel of each weight; None keeps every value.
        rope_factor: how far RoPE is scaled, instead of what the files say or imply.
        progress: called with the number of loaded layers after each.
    Raises: as ``check_loadable`` and ``read_checked``.
    """
    check_loadable(checkpoint, size, rope_factor=rope_factor)
    scaling = scaling_of(checkpoint.params, checkpoint.path, factor=rope_factor)
    packer = packer or Packer(device, dtype)
    params = checkpoint.params
    architecture = architecture_of(params)
    kinds = _kinds(params, packer)
    layers: Layers = PlainLayers(packer) if size == 1 else ParallelLayers(packer)

    def fetch(name: str, parameter: Parameter | None = None) -> torch.Tensor:
        where = slice_for_rank(parameter or checkpoint.parameters[name], params, rank, size)
        bounds = {"axis": where.axis, "start": where.start, "stop": where.stop}
        array = read_checked(checkpoint, name, **bounds)
        read_ahead(array)
        return to_torch(array)

    def fetch_weight(name: str) -> Weight:
        parameter = checkpoint.parameters.get(name) or as_output(checkpoint.parameters[EMBEDDING])
        where = slice_for_rank(parameter, params, rank, size)
        if takes_stored(checkpoint, name, packer.quantize):
            return read_rounded(checkpoint, parameter, where)
        kind = kinds.get(name)
        if kind == "int8" and where.axis == 1 and size > 1:
            return round_slice(checkpoint, parameter, where)
        if kind == "int8" and packer.quantize == "int4" and name != OUTPUT:
            return Rounded("int8", *to_int8(fetch(name)))
        if kind == "int4" and not fits_int4(name.split(".", 2)[2], params, size):
            return round_groups(checkpoint, parameter, where)
        return fetch(name)

    def norm(weight: torch.Tensor) -> RMSNorm:
        return RMSNorm(weight.to(device=device, dtype=dtype, copy=True), params.norm_eps)

    embedding = checkpoint.parameters[EMBEDDING]
    embeddings = fetch(EMBEDDING)
    weight: Weight
    if not params.tied_embeddings or takes_stored(checkpoint, OUTPUT, packer.quantize):
        weight = fetch_weight(OUTPUT)
    elif size == 1 or embedding.axis == 0:
        weight = embeddings
    else:  # this rank's rows of what it has its columns of
        weight = fetch(EMBEDDING, as_output(embedding))
    # The largest first: while it is packed nothing else is in memory yet.
    output = layers.output(weight)
    blocks = []
    with ThreadPoolExecutor(min(PACKERS, torch.get_num_threads())) as pool:
        for number, weights in enumerate(_one_ahead(_fetchers(params, fetch_weight))):
            make = partial(_block, pool=pool)
            if architecture is not None:
                make = partial(llama4_layers.make_block, architecture=architecture, pool=pool)
            blocks.append(make(number, weights, layers, norm, params.head_dim))
            if progress:
                progress(number + 1)
    return Transformer(
        layers.embedding(embeddings, first=_first_row(embedding, params, rank, size)),
        blocks,
        norm(fetch("norm.weight")),
        output,
        head_dim=params.head_dim,
        n_kv_heads=max(1, params.n_kv_heads // size),
        rope=frequencies(params.head_dim, params.rope_theta, scaling),
        chunk=architecture.chunk if architecture else None,
    ).eval()


def _kinds(params: ModelParams, packer: Packer) -> dict[str, Quantization]:
    """Say how each weight is rounded; nothing where the packer decides by what a rank holds.

    It does for Llama 4, whose experts are stored transposed, and in 4 bits on a GPU, whose
    operators take other shapes than a CPU's.
    """
    match packer.quantize:
        case "int4" if packer.device.type != "cpu":
            return {}
        case "int8" | "int4" if architecture_of(params) is None:
            return kinds_of(params, packer.quantize)
    return {}


def _first_row(embedding: Parameter, params: ModelParams, rank: int, size: int) -> int | None:
    """Return the token of this rank's first row of an embedding that is split by vocabulary."""
    return slice_for_rank(embedding, params, rank, size).start if embedding.axis == 0 else None


Weights = dict[str, Any]
"""By the name within a layer: a ``Weight``, or the tensor of a norm."""


def _fetchers(
    params: ModelParams, fetch: Callable[[str], Weight]
) -> Iterator[Callable[[], Weights]]:
    """Yield, for each layer, a function that maps its weights and starts reading them."""
    for number in range(params.n_layers):

        def layer(number: int = number) -> Weights:
            names = layer_shapes(params, number)
            return {name: fetch(f"layers.{number}.{name}") for name in names}

        yield layer


def _one_ahead(jobs: Iterator[Callable[[], T]]) -> Iterator[T]:
    """Yield the result of each job while a thread runs the next: reading overlaps packing."""
    with ThreadPoolExecutor(1) as thread:
        waiting = [thread.submit(job) for job in [next(jobs)]]
        for job in jobs:
            waiting.append(thread.submit(job))
            yield waiting.pop(0).result()
        yield waiting.pop(0).result()


def _block(
    number: int,
    weights: Weights,
    layers: Layers,
    norm: Callable[[torch.Tensor], RMSNorm],
    head_dim: int,
    pool: ThreadPoolExecutor,
) -> Block:
    """Pack one layer; each weight is removed from ``weights`` as it is packed."""

    def pack(make: Callable[..., nn.Module], *names: str) -> nn.Module:
        layer = make(*(weights.pop(name) for name in names))
        trim()
        return layer

    w13 = pool.submit(pack, layers.column, *FEED_FORWARD[:2])  # the largest first
    w2 = pool.submit(pack, layers.row, FEED_FORWARD[2])
    wqkv = pool.submit(pack, layers.column, *ATTENTION[:3])
    wo = pool.submit(pack, layers.row, ATTENTION[3])
    attention = Attention(wqkv.result(), wo.result(), head_dim, number)
    feed_forward = FeedForward(w13.result(), w2.result())
    norms = [norm(weights.pop(name)) for name in NORMS]
    return Block(attention, feed_forward, *norms)
