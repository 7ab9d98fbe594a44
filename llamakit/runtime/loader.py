"""Loads the slice of one rank from a checkpoint of any number of shards.

Each rank reads its own bytes only, and packs each weight as it is read. A weight is freed before
the next one is read, so there are never two copies of the model in memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy
import torch
from torch import nn

from llamakit.checkpoint.checked_read import read_checked
from llamakit.checkpoint.layout import EMBEDDING, OUTPUT, layer_shapes
from llamakit.checkpoint.llama4 import architecture_of
from llamakit.checkpoint.model_support import check_loadable
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.rope_scaling import scaling_of
from llamakit.checkpoint.shard_plan import slice_for_rank
from llamakit.protocols import Checkpoint, Parameter
from llamakit.runtime import llama4_layers
from llamakit.runtime.attention import Attention
from llamakit.runtime.host_memory import trim
from llamakit.runtime.kernels.choice import Packer
from llamakit.runtime.linear import Layers, ParallelLayers, PlainLayers
from llamakit.runtime.model import Block, FeedForward, RMSNorm, Transformer
from llamakit.runtime.rope import frequencies

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
    layers: Layers = PlainLayers(packer) if size == 1 else ParallelLayers(packer)

    def fetch(name: str, parameter: Parameter | None = None) -> torch.Tensor:
        where = slice_for_rank(parameter or checkpoint.parameters[name], params, rank, size)
        bounds = {"axis": where.axis, "start": where.start, "stop": where.stop}
        array = read_checked(checkpoint, name, **bounds)
        read_ahead(array)
        return to_torch(array)

    def norm(weight: torch.Tensor) -> RMSNorm:
        return RMSNorm(weight.to(device=device, dtype=dtype, copy=True), params.norm_eps)

    embedding = checkpoint.parameters[EMBEDDING]
    embeddings = fetch(EMBEDDING)
    if not params.tied_embeddings:
        weight = fetch(OUTPUT)
    elif size == 1 or embedding.axis == 0:
        weight = embeddings
    else:  # this rank's rows of what it has its columns of
        weight = fetch(EMBEDDING, replace(embedding, axis=0))
    # The largest first: while it is packed nothing else is in memory yet.
    output = layers.output(weight)
    blocks = []
    with ThreadPoolExecutor(min(PACKERS, torch.get_num_threads())) as pool:
        for number, weights in enumerate(_one_ahead(_fetchers(params, fetch))):
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


def _first_row(embedding: Parameter, params: ModelParams, rank: int, size: int) -> int | None:
    """Return the token of this rank's first row of an embedding that is split by vocabulary."""
    return slice_for_rank(embedding, params, rank, size).start if embedding.axis == 0 else None


Weights = dict[str, torch.Tensor]


def _fetchers(
    params: ModelParams, fetch: Callable[[str], torch.Tensor]
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


def to_torch(array: numpy.ndarray[Any, Any]) -> torch.Tensor:
    """View an array as a tensor, bfloat16 included; memory is shared.

    Args:
        array: such as ``Checkpoint.read`` returns. One that cannot be written to, such as a mapped
            file's, is copied: torch has no such tensors.
    """
    if not array.flags.writeable:
        array = array.copy()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(numpy.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def read_ahead(array: numpy.ndarray[Any, Any]) -> None:
    """Have the system read the bytes of a mapped array in large blocks.

    Page faults read a mapped file in blocks of 128 KiB. An array that is not contiguous, such as a
    slice along axis 1, is left alone: the bytes in between are not wanted.
    """
    mapped = _map_of(array)
    if mapped is None or not array.flags.c_contiguous or not hasattr(mapped, "madvise"):
        return
    first = numpy.frombuffer(mapped, numpy.uint8)
    start = _address(array) - _address(first)
    begin = start - start % mmap.PAGESIZE
    mapped.madvise(mmap.MADV_WILLNEED, begin, start + array.nbytes - begin)


def _map_of(array: numpy.ndarray[Any, Any]) -> mmap.mmap | None:
    base: object = array
    while isinstance(base, numpy.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def _address(array: numpy.ndarray[Any, Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
