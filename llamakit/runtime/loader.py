"""From a checkpoint of any number of shards to the model of one rank of any legal number.

Each rank reads its own bytes only, and packs each weight as it is read: what is packed is let go
before the next is touched, so two copies of the model never stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import nn

from llamakit.checkpoint.checked_read import read_checked
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.plan import slice_for_rank
from llamakit.protocols import Checkpoint
from llamakit.runtime.heap import trim
from llamakit.runtime.kernels.choice import Packer
from llamakit.runtime.linear import Layers, ParallelLayers, PlainLayers
from llamakit.runtime.loadable import check_loadable
from llamakit.runtime.model import Attention, Block, FeedForward, RMSNorm, Transformer
from llamakit.runtime.read_ahead import read_ahead
from llamakit.runtime.tensors import to_torch

ATTENTION = ("attention.wq", "attention.wk", "attention.wv", "attention.wo")
FEED_FORWARD = ("feed_forward.w1", "feed_forward.w3", "feed_forward.w2")
NORMS = ("attention_norm", "ffn_norm")

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
    progress: Callable[[int], None] | None = None,
) -> Transformer:
    """Build the model that one rank holds.

    Args:
        rank: which slice, of ``size``.
        packer: chooses the form of the weights; None keeps every value.
        progress: told how many layers are loaded after each.
    Raises: as ``check_loadable`` and ``read_checked``.
    """
    check_loadable(checkpoint, size)
    packer = packer or Packer(device, dtype)
    params = checkpoint.params
    layers: Layers = PlainLayers(packer) if size == 1 else ParallelLayers(packer)

    def fetch(name: str) -> torch.Tensor:
        where = slice_for_rank(checkpoint.parameters[name], params, rank, size)
        bounds = {"axis": where.axis, "start": where.start, "stop": where.stop}
        array = read_checked(checkpoint, name, **bounds)
        read_ahead(array)
        return to_torch(array)

    def norm(weight: torch.Tensor) -> RMSNorm:
        return RMSNorm(weight.to(device=device, dtype=dtype, copy=True), params.norm_eps)

    embeddings = fetch("tok_embeddings.weight")
    # The largest first: what packing takes for a moment stands beside nothing yet.
    output = layers.output(embeddings if params.tied_embeddings else fetch("output.weight"))
    blocks = []
    with ThreadPoolExecutor(min(PACKERS, torch.get_num_threads())) as pool:
        for number, weights in enumerate(_one_ahead(_fetchers(params, fetch))):
            blocks.append(_block(number, weights, layers, norm, params.head_dim, pool))
            if progress:
                progress(number + 1)
    return Transformer(
        layers.embedding(embeddings),
        blocks,
        norm(fetch("norm.weight")),
        output,
        head_dim=params.head_dim,
        n_kv_heads=max(1, params.n_kv_heads // size),
        rope_theta=params.rope_theta,
    ).eval()


Weights = dict[str, torch.Tensor]


def _fetchers(
    params: ModelParams, fetch: Callable[[str], torch.Tensor]
) -> Iterator[Callable[[], Weights]]:
    """Yield, for each layer, what maps its weights and has the system read them."""
    for number in range(params.n_layers):

        def layer(number: int = number) -> Weights:
            names = (*ATTENTION, *FEED_FORWARD, *NORMS)
            return {name: fetch(f"layers.{number}.{name}.weight") for name in names}

        yield layer


def _one_ahead(jobs: Iterator[Callable[[], T]]) -> Iterator[T]:
    """Yield what each job returns, while a thread does the next: the disk works as we pack."""
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
    """Pack one layer; each weight leaves ``weights`` as it is packed."""

    def pack(make: Callable[..., nn.Module], *names: str) -> nn.Module:
        made = make(*(weights.pop(name) for name in names))
        trim()
        return made

    w13 = pool.submit(pack, layers.column, *FEED_FORWARD[:2])  # the largest first
    w2 = pool.submit(pack, layers.row, FEED_FORWARD[2])
    wqkv = pool.submit(pack, layers.column, *ATTENTION[:3])
    wo = pool.submit(pack, layers.row, ATTENTION[3])
    attention = Attention(wqkv.result(), wo.result(), head_dim, number)
    feed_forward = FeedForward(w13.result(), w2.result())
    norms = [norm(weights.pop(name)) for name in NORMS]
    return Block(attention, feed_forward, *norms)
