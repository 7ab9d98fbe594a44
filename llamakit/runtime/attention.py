"""Grouped-query attention over the KV cache, as one rank computes it.

Shapes: B rows, T new positions, S positions in the cache, H query heads and K key/value heads of
this rank, D head dimension.
Source: the reference's ``llama/model.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from llamakit.runtime.kv_cache import KVCache
from llamakit.runtime.rope import rotate


@dataclass(frozen=True)
class CacheWindow:
    """The part of the cache that a batch reads and writes: the same for every layer."""

    cache: KVCache
    slots: slice
    start: int | None  # first new position, if it is the same for all rows and known on the host
    positions: torch.Tensor  # (B, T)
    stop: int  # positions of the cache that are attended to
    rotation: torch.Tensor  # (B, T, 1, D/2, 2)
    mask: torch.Tensor | None  # (B or 1, 1, T, S), 0 where a query sees a key, else -inf
    causal: bool
    chunk_mask: torch.Tensor | None = None  # as mask, within chunks; None: there is one chunk

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

    def forward(self, x: torch.Tensor, window: CacheWindow) -> torch.Tensor:
        """``(B, T, dim)`` to the same."""
        projected = self.wqkv(x)
        heads = projected.view(*projected.shape[:-1], -1, self.head_dim)  # (B, T, H + 2K, D)
        count = window.cache.keys.shape[2]  # K
        rotated = rotate(heads[:, :, :-count], window.rotation)  # queries and keys
        q, k = rotated[:, :, :-count], rotated[:, :, -count:]  # (B, T, H, D), (B, T, K, D)
        keys, values = window.store(self.layer, k, heads[:, :, -count:])  # (B, K, S, D)
        attended = attend(q, keys, values, window.mask, causal=window.causal)
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
    """Compute attention; each key/value head serves its group of query heads.

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
        # The group takes the axis of the positions: nothing is repeated or transposed.
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
