"""Loads the slice of one rank from a checkpoint of any number of shards.

Each rank reads its own bytes only, and packs each weight as it is read. A weight is freed before
the next one is read, so there are never two copies of the model in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

from llamakit.checkpoint.layout import EMBEDDING
from llamakit.checkpoint.llama4 import architecture_of
from llamakit.checkpoint.model_support import check_loadable
from llamakit.checkpoint.rope_scaling import scaling_of
from llamakit.protocols import Checkpoint
from llamakit.runtime import llama4_layers
from llamakit.runtime.attention import Attention
from llamakit.runtime.block import Block, FeedForward, RMSNorm
from llamakit.runtime.host_memory import trim
from llamakit.runtime.kernels.choice import Packer
from llamakit.runtime.linear import Layers, ParallelLayers, PlainLayers
from llamakit.runtime.model import Transformer
from llamakit.runtime.rope import frequencies
from llamakit.runtime.weight_reader import WeightReader, Weights, kinds_for

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
    reader = WeightReader(checkpoint, rank, size, packer.quantize, kinds_for(params, packer))
    layers: Layers = PlainLayers(packer) if size == 1 else ParallelLayers(packer)
    norm = partial(_norm, eps=params.norm_eps, dtype=dtype, device=device)
    architecture = architecture_of(params)
    embeddings = reader.tensor(EMBEDDING)
    # The largest first: while it is packed nothing else is in memory yet.
    output = layers.output(reader.output(embeddings))
    blocks = _blocks(reader, layers, norm, progress)
    return Transformer(
        layers.embedding(embeddings, first=reader.first_row()),
        blocks,
        norm(reader.tensor("norm.weight")),
        output,
        head_dim=params.head_dim,
        n_kv_heads=max(1, params.n_kv_heads // size),
        rope=frequencies(params.head_dim, params.rope_theta, scaling),
        chunk=architecture.chunk if architecture else None,
    ).eval()


def _norm(weight: torch.Tensor, eps: float, dtype: torch.dtype, device: torch.device) -> RMSNorm:
    return RMSNorm(weight.to(device=device, dtype=dtype, copy=True), eps)


def _blocks(
    reader: WeightReader,
    layers: Layers,
    norm: Callable[[torch.Tensor], RMSNorm],
    progress: Callable[[int], None] | None,
) -> list[Block]:
    """Pack all layers, while the next one is read."""
    blocks = []
    params, architecture = reader.params, architecture_of(reader.params)
    with ThreadPoolExecutor(min(PACKERS, torch.get_num_threads())) as pool:
        make = partial(_block, pool=pool)
        if architecture is not None:
            make = partial(llama4_layers.make_block, architecture=architecture, pool=pool)
        jobs = (partial(reader.layer, number) for number in range(params.n_layers))
        for number, weights in enumerate(_one_ahead(jobs)):
            blocks.append(make(number, weights, layers, norm, params.head_dim))
            if progress:
                progress(number + 1)
    return blocks


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

    def pack(make: Callable[..., T], *names: str) -> T:
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
