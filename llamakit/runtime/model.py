"""The Llama 2 model, as one rank computes it.

Shapes: B rows, T new positions, S positions in the cache, H heads and K key/value heads of this
rank, D head dimension, V vocabulary.
Source: the reference's ``llama/model.py``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

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
    start: int | None  # of every row, where they all start alike and the number is at hand
    positions: torch.Tensor  # (B, T)
    stop: int  # positions of the cache that are looked at
    rotation: torch.Tensor  # (B, T, 1, D/2, 2)
    mask: torch.Tensor | None  # (B or 1, 1, T, S), 0 where a query sees a key, else -inf
    causal: bool

    def store(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put new keys and values, ``(B, T, K, D)``, into the cache; return all of both."""
        keys = self.cache.keys[layer, self.slots]  # (B, K, length, D)
        values = self.cache.values[layer, self.slots]
        if self.start is not None:
            keys[:, :, self.start : self.stop] = k.transpose(1, 2)
            values[:, :, self.start : self.stop] = v.transpose(1, 2)
        else:
            rows = torch.arange(len(keys), device=keys.device)[:, None]  # (B, 1)
            keys[rows, :, self.positions] = k
            values[rows, :, self.positions] = v
        return keys[:, :, : self.stop], values[:, :, : self.stop]  # (B, K, S, D)


class DecodingStep(Protocol):
    """Another way to compute a step that has one new token a row."""

    def takes(self, batch: Batch, cache: KVCache) -> bool:
        """Say whether it computes a batch."""
        ...

    def spend(self, seconds: float) -> None:
        """Count the time of a step that it might have taken."""
        ...

    def __call__(self, batch: Batch, cache: KVCache, device: torch.device) -> torch.Tensor:
        """Return the logits, ``(B, V)`` float32."""
        ...


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
        return rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention over the cache.

    Args:
        wqkv: queries, keys and values in one multiplication, ``((H + 2K) D, dim)``.
    Source: Ainslie and others 2023, https://arxiv.org/abs/2305.13245
    """

    def __init__(self, wqkv: nn.Module, wo: nn.Module, head_dim: int, layer: int) -> None:
        super().__init__()
        self.wqkv, self.wo = wqkv, wo
        self.head_dim = head_dim
        self.layer = layer

    def forward(self, x: torch.Tensor, span: Span) -> torch.Tensor:
        """``(B, T, dim)`` to the same."""
        mixed = self.wqkv(x)
        heads = mixed.view(*mixed.shape[:-1], -1, self.head_dim)  # (B, T, H + 2K, D)
        count = span.cache.keys.shape[2]  # K
        turned = rotate(heads[:, :, :-count], span.rotation)  # queries and keys
        q, k = turned[:, :, :-count], turned[:, :, -count:]  # (B, T, H, D), (B, T, K, D)
        keys, values = span.store(self.layer, k, heads[:, :, -count:])  # (B, K, S, D)
        attended = attend(q, keys, values, span.mask, causal=span.causal)
        out: torch.Tensor = self.wo(attended)
        return out


def attend(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    causal: bool,
) -> torch.Tensor:
    """Let queries look at keys, each key/value head serving its group of query heads.

    Args:
        q: ``(B, T, H, D)``.
        keys: ``(B, K, S, D)``, as ``values``.
        mask: ``(B or 1, 1, T, S)``, added; None where every query sees every key.
        causal: query i sees the keys up to i.
    Returns:
        ``(B, T, H D)``.
    """
    rows, count, heads, width = q.shape
    if count == 1:
        # The group stands where the positions do: nothing is repeated, nothing transposed.
        grouped = q.reshape(rows, keys.shape[1], -1, width)  # (B, K, H/K, D)
        attended = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
        return attended.reshape(rows, 1, -1)
    attended = scaled_dot_product_attention(
        q.transpose(1, 2),  # (B, H, T, D)
        keys,
        values,
        attn_mask=mask,
        is_causal=causal,
        enable_gqa=heads != keys.shape[1],
    )
    return attended.transpose(1, 2).flatten(-2)


class FeedForward(nn.Module):
    """SwiGLU. Source: Shazeer 2020, https://arxiv.org/abs/2002.05202.

    Args:
        w13: the gate (``w1``) and what it gates (``w3``) in one, ``(2 hidden, dim)``.
    """

    def __init__(self, w13: nn.Module, w2: nn.Module) -> None:
        super().__init__()
        self.w13, self.w2 = w13, w2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, T, dim)`` to the same."""
        gate, gated = self.w13(x).chunk(2, -1)
        out: torch.Tensor = self.w2(silu(gate) * gated)
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
        self.decoder: DecodingStep | None = None
        """Takes over steps of one new token a row; see ``compiled``."""

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
        if self.decoder is not None and self.decoder.takes(batch, cache):
            self._rotations_for(cache.length)
            return self.decoder(batch, cache, self.device)
        started = time.perf_counter()
        x = self.embed(batch)
        span = self.span(batch, cache)
        for layer in self.layers:
            x = layer(x, span)
        if self.decoder is not None and len(batch.tokens[0]) == 1:
            self.decoder.spend(time.perf_counter() - started)
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

    def step(
        self, tokens: torch.Tensor, positions: torch.Tensor, cache: KVCache, stop: int
    ) -> torch.Tensor:
        """Compute one new id of each row with fixed shapes, for torch.compile.

        Args:
            tokens: ``(B, 1)``.
            positions: ``(B, 1)``.
            stop: how many positions of the cache are looked at.
        Returns:
            ``(B, V)`` float32.
        """
        assert self._rotations is not None
        span = Span(
            cache=cache,
            slots=slice(0, len(tokens)),
            start=None,
            positions=positions,
            stop=stop,
            rotation=self._rotations[positions].unsqueeze(2),
            mask=self._mask(positions, stop),
            causal=False,
        )
        x = self.tok_embeddings(tokens)
        for layer in self.layers:
            x = layer(x, span)
        logits: torch.Tensor = self.output(self.norm(x[:, -1])).float()
        return logits

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
        aligned = min(batch.starts) == max(batch.starts)
        mask = None
        if not fresh and not (aligned and count == 1):
            mask = self._mask(positions[:1] if aligned else positions, stop)
        return Span(
            cache=cache,
            slots=slice(batch.slot, batch.slot + rows),
            start=batch.starts[0] if aligned else None,
            positions=positions,
            stop=stop,
            rotation=self._rotations_for(cache.length)[positions].unsqueeze(2),
            mask=mask,
            causal=fresh and count > 1,
        )

    def _mask(self, positions: torch.Tensor, stop: int) -> torch.Tensor:
        """Return what hides later positions: ``(B, T)`` to ``(B, 1, T, stop)``."""
        hidden = torch.arange(stop, device=self.device) > positions[:, None, :, None]
        shape = hidden.shape
        return torch.zeros(shape, dtype=self.dtype, device=self.device).masked_fill_(
            hidden, float("-inf")
        )

    def _rotations_for(self, length: int) -> torch.Tensor:
        if self._rotations is None or len(self._rotations) < length:
            self._rotations = rotations(self.head_dim, length, self.rope_theta, self.device)
        return self._rotations
