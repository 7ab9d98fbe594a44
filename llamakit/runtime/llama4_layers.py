"""What Llama 4's layers have that Llama 3's lack, as one rank computes it.

Shapes: B rows, T new positions, S positions in the cache, N tokens, H query heads and K key/value
heads of this rank, D head dimension, E experts.
Source: ``models/llama4/model.py`` and ``moe.py`` of Meta's llama-models.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn
from torch.nn.functional import rms_norm

from llamakit.checkpoint.llama4 import Architecture
from llamakit.runtime.attention import CacheWindow
from llamakit.runtime.block import Block, FeedForward, RMSNorm
from llamakit.runtime.linear import Layers
from llamakit.runtime.rope import rotate

Weights = dict[str, torch.Tensor]


class Llama4Attention(nn.Module):
    """Attention within chunks with rotary embedding, or to everything without.

    Meta's code masks the chunks in a prefill and forgets them in steps of one token; here they are
    masked in every step, as in transformers.

    Args:
        wqkv: queries, keys and values in one multiplication, ``((H + 2K) D, dim)``.
        layer: its number.
        eps: of the normalization of queries and keys.
    """

    def __init__(
        self,
        wqkv: nn.Module,
        wo: nn.Module,
        head_dim: int,
        layer: int,
        architecture: Architecture,
        eps: float,
    ) -> None:
        super().__init__()
        self.wqkv, self.wo = wqkv, wo
        self.head_dim, self.layer = head_dim, layer
        self.architecture, self.eps = architecture, eps

    def forward(self, x: torch.Tensor, window: CacheWindow) -> torch.Tensor:
        """``(B, T, dim)`` to the same."""
        projected = self.wqkv(x)
        heads = projected.view(*projected.shape[:-1], -1, self.head_dim)  # (B, T, H + 2K, D)
        count = window.cache.n_kv_heads
        queries_and_keys, v = heads[:, :, :-count], heads[:, :, -count:]
        has_rope = self.architecture.has_rope(self.layer)
        if has_rope:
            queries_and_keys = rotate(queries_and_keys, window.rotation)
            if self.architecture.use_qk_norm:
                normal = rms_norm(queries_and_keys.float(), (self.head_dim,), eps=self.eps)
                queries_and_keys = normal.to(x.dtype)
        q, k = queries_and_keys[:, :, :-count], queries_and_keys[:, :, -count:]
        if self.architecture.tunes_temperature and not has_rope:
            q = (q * self._temperatures(window.place.positions)).to(x.dtype)
        out: torch.Tensor = self.wo(window.attend(self.layer, q, k, v, within_chunks=has_rope))
        return out

    def _temperatures(self, positions: torch.Tensor) -> torch.Tensor:
        """Return what queries are multiplied by: ``(B, T)`` to ``(B, T, 1, 1)``, float32."""
        steps = torch.floor((positions.float() + 1) / self.architecture.floor_scale)
        return (torch.log1p(steps) * self.architecture.attn_scale + 1)[..., None, None]


class Experts(nn.Module):
    """Sends each token to the experts of the highest score, and to the one that all share.

    On several ranks each holds a slice of every expert, and the outputs have to be summed.

    Args:
        router: ``(dim, E)``.
        experts: what each token's scaled input goes through.
    """

    def __init__(
        self, router: torch.Tensor, top_k: int, experts: list[nn.Module], shared: nn.Module
    ) -> None:
        super().__init__()
        self.router = nn.Parameter(router, requires_grad=False)
        self.top_k = top_k
        self.experts, self.shared = nn.ModuleList(experts), shared

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, T, dim)`` to the same."""
        tokens = x.reshape(-1, x.shape[-1])  # (N, dim)
        scores, chosen = (tokens @ self.router).topk(self.top_k, dim=-1)  # (N, top_k)
        scores = scores.float().sigmoid().to(x.dtype)
        out: torch.Tensor = self.shared(tokens)
        for number in sorted(set(chosen.flatten().tolist())):
            rows, ranks = (chosen == number).nonzero(as_tuple=True)
            out = out.index_add(
                0, rows, self.experts[number](tokens[rows] * scores[rows, ranks, None])
            )
        return out.view(x.shape)


def make_block(
    number: int,
    weights: Weights,
    layers: Layers,
    norm: Callable[[torch.Tensor], RMSNorm],
    head_dim: int,
    architecture: Architecture,
    pool: ThreadPoolExecutor,
) -> Block:
    """Pack one layer; each weight is removed from ``weights`` as it is packed."""
    wqkv = pool.submit(
        layers.column, *(weights.pop(f"attention.w{letter}.weight") for letter in ("q", "k", "v"))
    )
    wo = pool.submit(layers.row, weights.pop("attention.wo.weight"))
    feed_forward = (
        _experts(weights, layers, norm, architecture, pool)
        if architecture.has_experts(number)
        else _feed_forward(weights, layers)
    )
    norms = [norm(weights.pop(f"{name}.weight")) for name in ("attention_norm", "ffn_norm")]
    attention = Llama4Attention(
        wqkv.result(), wo.result(), head_dim, number, architecture, norms[0].eps
    )
    return Block(attention, feed_forward, *norms)


def _feed_forward(weights: Weights, layers: Layers) -> nn.Module:
    w1, w3, w2 = (weights.pop(f"feed_forward.{name}.weight") for name in ("w1", "w3", "w2"))
    return FeedForward(layers.column(w1, w3), layers.row(w2))


def _experts(
    weights: Weights,
    layers: Layers,
    norm: Callable[[torch.Tensor], RMSNorm],
    architecture: Architecture,
    pool: ThreadPoolExecutor,
) -> nn.Module:
    def pack(w1: torch.Tensor, w3: torch.Tensor, w2: torch.Tensor) -> nn.Module:
        # ``column`` leaves the sum over the ranks to the end: one for all experts.
        return FeedForward(layers.column(w1, w3), layers.column(w2))

    def expert(index: int) -> nn.Module:
        names = ("moe_w_in_D_F", "moe_w_swiglu_D_F", "moe_w_out_F_D")
        stored = [weights.pop(f"feed_forward.experts.{index}.{name}") for name in names]
        return pack(*(weight.T.contiguous() for weight in stored))

    router = norm(weights.pop("feed_forward.router_DE")).weight.data  # placed and cast alike
    names = ("w_in_shared_FD", "w_swiglu_FD", "w_out_shared_DF")
    shared = pack(*(weights.pop(f"feed_forward.{name}.weight") for name in names))
    experts = list(pool.map(expert, range(architecture.experts)))
    return layers.summed(Experts(router, architecture.top_k, experts, shared))
