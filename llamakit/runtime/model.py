"""The Llama 2 model, as one rank computes it.

Shapes: B rows, T new positions, S positions in the cache, H heads and K key/value heads of this
rank, D head dimension, V vocabulary.
Source: the reference's ``llama/model.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention, silu

from llamakit.runtime.kv_cache import KVCache
from llamakit.runtime.rope import rotate, rotations


@dataclass(frozen=True)
class Batch:
    """New ids of some rows that lie in neighbouring slots of the cache.

    Rows that have fewer than T new ids are padded at their end: what the cache then holds behind
    them is never looked at, since the next ids are written over it.

    Args:
        tokens: ``B`` rows of ``T`` ids each.
        starts: for each row, how many ids the cache holds already.
        slot: the slot of the first row; the others follow.
        every_position: logits of all T positions instead of the last one's.
        lengths: how many of each row's ids count; None: all T of every row.
    """

    tokens: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    slot: int = 0
    every_position: bool = False
    lengths: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Span:
    """Where a batch stands in the cache: the same for every layer."""

    cache: KVCache
    slots: slice
    positions: torch.Tensor  # (B, T)
    stop: int  # positions of the cache that are looked at
    rotation: torch.Tensor  # (B, T, 1, D/2, 2)
    mask: torch.Tensor | None  # (B, 1, T, S), True where a query sees a key
    causal: bool


class RMSNorm(nn.Module):
    """Scale to unit root mean square, in float32.

    Source: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467
    """

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., dim)`` to the same."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale).to(x.dtype) * self.weight


class Attention(nn.Module):
    """Grouped-query attention over the cache.

    Source: Ainslie and others 2023, https://arxiv.org/abs/2305.13245
    """

    def __init__(
        self, wq: nn.Module, wk: nn.Module, wv: nn.Module, wo: nn.Module, head_dim: int, layer: int
    ) -> None:
        super().__init__()
        self.wq, self.wk, self.wv, self.wo = wq, wk, wv, wo
        self.head_dim = head_dim
        self.layer = layer

    def forward(self, x: torch.Tensor, span: Span) -> torch.Tensor:
        """``(B, T, dim)`` to the same."""
        q = rotate(self._heads(self.wq(x)), span.rotation)  # (B, T, H, D)
        k = rotate(self._heads(self.wk(x)), span.rotation)  # (B, T, K, D)
        v = self._heads(self.wv(x))  # (B, T, K, D)

        keys = span.cache.keys[self.layer, span.slots]  # (B, K, length, D)
        values = span.cache.values[self.layer, span.slots]
        index = span.positions[:, None, :, None].expand(-1, k.shape[2], -1, self.head_dim)
        keys.scatter_(2, index, k.transpose(1, 2))
        values.scatter_(2, index, v.transpose(1, 2))

        attended = scaled_dot_product_attention(
            q.transpose(1, 2),  # (B, H, T, D)
            keys[:, :, : span.stop],  # (B, K, S, D)
            values[:, :, : span.stop],
            attn_mask=span.mask,
            is_causal=span.causal,
            enable_gqa=q.shape[2] != k.shape[2],
        )
        out: torch.Tensor = self.wo(attended.transpose(1, 2).flatten(-2))
        return out

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:-1], -1, self.head_dim)


class FeedForward(nn.Module):
    """SwiGLU. Source: Shazeer 2020, https://arxiv.org/abs/2002.05202."""

    def __init__(self, w1: nn.Module, w2: nn.Module, w3: nn.Module) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = w1, w2, w3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, T, dim)`` to the same."""
        out: torch.Tensor = self.w2(silu(self.w1(x)) * self.w3(x))
        return out


class Block(nn.Module):
    """One layer."""

    def __init__(
        self,
        attention: Attention,
        feed_forward: FeedForward,
        attention_norm: RMSNorm,
        ffn_norm: RMSNorm,
    ) -> None:
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.attention_norm, self.ffn_norm = attention_norm, ffn_norm

    def forward(self, x: torch.Tensor, span: Span) -> torch.Tensor:
        """``(B, T, dim)`` to the same."""
        x = x + self.attention(self.attention_norm(x), span)
        x = x + self.feed_forward(self.ffn_norm(x))
        return x  # noqa: RET504


class Transformer(nn.Module):
    """Ids to logits.

    Args:
        n_kv_heads: of this rank.
        rope_theta: the rotary base.
    """

    def __init__(
        self,
        tok_embeddings: nn.Module,
        layers: list[Block],
        norm: RMSNorm,
        output: nn.Module,
        *,
        head_dim: int,
        n_kv_heads: int,
        rope_theta: float,
    ) -> None:
        super().__init__()
        self.tok_embeddings, self.norm, self.output = tok_embeddings, norm, output
        self.layers = nn.ModuleList(layers)
        self.head_dim, self.n_kv_heads, self.rope_theta = head_dim, n_kv_heads, rope_theta
        self._rotations: torch.Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.norm.weight.dtype

    def new_cache(self, slots: int, length: int) -> KVCache:
        """Allocate keys and values for ``slots`` sequences of at most ``length`` ids."""
        return KVCache(
            len(self.layers), slots, length, self.n_kv_heads, self.head_dim, self.dtype, self.device
        )

    @torch.inference_mode()
    def forward(self, batch: Batch, cache: KVCache) -> torch.Tensor:
        """Compute the logits of the new ids and put their keys and values into the cache.

        Returns:
            ``(B, V)`` float32, or ``(B, T, V)`` with ``every_position``.
        """
        x = self.embed(batch)
        span = self.span(batch, cache)
        for layer in self.layers:
            x = layer(x, span)
        if not batch.every_position:
            x = self._last(x, batch)
        logits: torch.Tensor = self.output(self.norm(x)).float()
        return logits

    def _last(self, x: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Pick each row's last position that counts: ``(B, T, dim)`` to ``(B, dim)``."""
        if batch.lengths is None:
            return x[:, -1]
        rows = torch.arange(len(batch.lengths), device=x.device)
        return x[rows, torch.tensor(batch.lengths, device=x.device) - 1]

    @torch.inference_mode()
    def first_nonfinite(self, batch: Batch, cache: KVCache) -> str:
        """Compute a batch again and say where NaN or infinity first shows."""
        x = self.embed(batch)
        if not x.isfinite().all():
            return "the embedding"
        span = self.span(batch, cache)
        for number, layer in enumerate(self.layers):
            x = layer(x, span)
            if not x.isfinite().all():
                return f"layer {number}"
        return "the final norm or the output layer"

    def embed(self, batch: Batch) -> torch.Tensor:
        """Return the embeddings of the new ids, ``(B, T, dim)``."""
        out: torch.Tensor = self.tok_embeddings(torch.tensor(batch.tokens, device=self.device))
        return out

    def span(self, batch: Batch, cache: KVCache) -> Span:
        """Work out what is the same for every layer."""
        rows, count = len(batch.tokens), len(batch.tokens[0])
        stop = max(batch.starts) + count
        starts = torch.tensor(batch.starts, device=self.device)
        positions = starts[:, None] + torch.arange(count, device=self.device)  # (B, T)
        fresh = stop == count  # nothing in the cache yet
        alone = count == 1 and min(batch.starts) == max(batch.starts)
        mask = None
        if not fresh and not alone:
            mask = torch.arange(stop, device=self.device) <= positions[:, None, :, None]
        return Span(
            cache=cache,
            slots=slice(batch.slot, batch.slot + rows),
            positions=positions,
            stop=stop,
            rotation=self._rotations_for(cache.length)[positions].unsqueeze(2),
            mask=mask,
            causal=fresh and count > 1,
        )

    def _rotations_for(self, length: int) -> torch.Tensor:
        if self._rotations is None or len(self._rotations) < length:
            self._rotations = rotations(self.head_dim, length, self.rope_theta, self.device)
        return self._rotations
