"""From a checkpoint of any number of shards to the model of one rank of any legal number.

Each rank reads its own bytes only: one parameter, one slice, one layer at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from llamakit.checkpoint.plan import slice_for_rank
from llamakit.protocols import Checkpoint
from llamakit.runtime.linear import FairscaleLayers, Layers, PlainLayers
from llamakit.runtime.loadable import check_loadable
from llamakit.runtime.model import Attention, Block, FeedForward, RMSNorm, Transformer
from llamakit.runtime.tensors import to_torch

Fetch = Callable[[str], torch.Tensor]


def load(
    checkpoint: Checkpoint,
    *,
    rank: int = 0,
    size: int = 1,
    dtype: torch.dtype,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> Transformer:
    """Build the model that one rank holds.

    Args:
        rank: which slice, of ``size``.
        progress: told how many layers are loaded after each.
    Raises: as ``check_loadable``.
    """
    check_loadable(checkpoint, size)
    params = checkpoint.params
    layers: Layers = PlainLayers() if size == 1 else FairscaleLayers(size)

    def fetch(name: str) -> torch.Tensor:
        where = slice_for_rank(checkpoint.parameters[name], params, rank, size)
        array = checkpoint.read(name, axis=where.axis, start=where.start, stop=where.stop)
        return to_torch(array).to(device=device, dtype=dtype)

    blocks = []
    for number in range(params.n_layers):
        blocks.append(_block(number, fetch, layers, params.head_dim, params.norm_eps))
        if progress:
            progress(number + 1)
    embeddings = fetch("tok_embeddings.weight")
    output = embeddings if params.tied_embeddings else fetch("output.weight")
    return Transformer(
        layers.embedding(embeddings),
        blocks,
        RMSNorm(fetch("norm.weight"), params.norm_eps),
        layers.column(output, gather=True),
        head_dim=params.head_dim,
        n_kv_heads=max(1, params.n_kv_heads // size),
        rope_theta=params.rope_theta,
    ).eval()


def _block(number: int, fetch: Fetch, layers: Layers, head_dim: int, eps: float) -> Block:
    def weight(name: str) -> torch.Tensor:
        return fetch(f"layers.{number}.{name}.weight")

    attention = Attention(
        layers.column(weight("attention.wq")),
        layers.column(weight("attention.wk")),
        layers.column(weight("attention.wv")),
        layers.row(weight("attention.wo")),
        head_dim,
        number,
    )
    feed_forward = FeedForward(
        layers.column(weight("feed_forward.w1")),
        layers.row(weight("feed_forward.w2")),
        layers.column(weight("feed_forward.w3")),
    )
    return Block(
        attention,
        feed_forward,
        RMSNorm(weight("attention_norm"), eps),
        RMSNorm(weight("ffn_norm"), eps),
    )
