"""Grouped-query attention over the KV cache, as one rank computes it.

Shapes: B rows, T new positions, S positions in the cache, H query heads and K key/value heads of
this rank, G = H/K query heads a group, D head dimension.
Source: the reference's ``llama/model.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from llamakit.runtime.attention_plan import Piece
from llamakit.runtime.kv_cache import KVCache, Place
from llamakit.runtime.rope import rotate


@dataclass(frozen=True)
class CacheWindow:
    """The part of the cache that a batch reads and writes: the same for every layer."""

    cache: KVCache
    place: Place
    rotation: torch.Tensor  # (B, T, 1, D/2, 2)
    pieces: tuple[Piece, ...]
    chunk_pieces: tuple[Piece, ...]  # of layers that attend within chunks

    def attend(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        within_chunks: bool = False,
    ) -> torch.Tensor:
        """Put new keys and values into the cache and compute attention.

        Args:
            q: ``(B, T, H, D)``.
            k: ``(B, T, K, D)``, as ``v``.
        Returns:
            ``(B, T, H D)``.
        """
        self.cache.write(layer, self.place, k, v)
        pieces = self.chunk_pieces if within_chunks else self.pieces
        if len(pieces) == 1:
            return attend(q, self._reader(layer, pieces[0]), pieces[0])
        out = torch.empty(*q.shape[:2], q[0, 0].numel(), dtype=q.dtype, device=q.device)
        for piece in pieces:
            where = piece.rows, piece.queries
            out[where] = attend(q[where], self._reader(layer, piece), piece)
        return out

    def _reader(self, layer: int, piece: Piece) -> Reader:
        slots = self.place.slots
        rows = slice(slots.start + piece.rows.start, slots.start + piece.rows.stop)
        return Reader(self.cache, layer, rows)


@dataclass(frozen=True)
class Reader:
    """Reads the keys and values of some slots in one layer."""

    cache: KVCache
    layer: int
    slots: slice

    def read(self, begin: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values, ``(B, K, S, D)`` each."""
        return self.cache.read(self.layer, self.slots, begin, stop)

    def blocks(self, begin: int, stop: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Read as many positions at once as is best for the cache."""
        block = self.cache.block or stop - begin
        for first in range(begin, stop, block):
            yield self.read(first, min(first + block, stop))


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
        count = window.cache.n_kv_heads
        rotated = rotate(heads[:, :, :-count], window.rotation)  # queries and keys
        q, k = rotated[:, :, :-count], rotated[:, :, -count:]  # (B, T, H, D), (B, T, K, D)
        out: torch.Tensor = self.wo(window.attend(self.layer, q, k, heads[:, :, -count:]))
        return out


def attend(q: torch.Tensor, reader: Reader, piece: Piece) -> torch.Tensor:
    """Compute one piece of attention; each key/value head serves its group of query heads.

    Args:
        q: ``(B, T, H, D)``.
    Returns:
        ``(B, T, H D)``.
    """
    rows, count, _, width = q.shape
    begin, start, stop = piece.begin, piece.start, piece.stop
    kv_heads = reader.cache.n_kv_heads
    if start == begin or (count > 1 and q.device.type != "cpu"):
        keys, values = reader.read(begin, stop)
        attended = scaled_dot_product_attention(
            q.transpose(1, 2),
            keys,
            values,
            attn_mask=piece.mask,
            is_causal=start is not None,
            enable_gqa=q.shape[2] != kv_heads,
        )
        return attended.transpose(1, 2).flatten(-2)
    # The group takes the axis of the positions: no key or value is repeated.
    grouped = q.transpose(1, 2).reshape(rows, kv_heads, -1, width)  # (B, K, G T, D)
    if start is None and (piece.mask is not None or not _is_long(reader.cache, piece)):
        keys, values = reader.read(begin, stop)
        mask = piece.mask
        if mask is not None and count > 1:
            mask = mask.repeat(1, 1, grouped.shape[2] // count, 1)  # (B or 1, 1, G T, S)
        attended = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
    else:
        attended = _combined(grouped, count, reader, piece)
    attended = attended.view(rows, -1, count, width)  # (B, H, T, D)
    return attended.transpose(1, 2).reshape(rows, count, -1)


def _is_long(cache: KVCache, piece: Piece) -> bool:
    return cache.block is not None and piece.stop - piece.begin > cache.block


def _combined(grouped: torch.Tensor, count: int, reader: Reader, piece: Piece) -> torch.Tensor:
    """Attend to what came before, and to the new positions with a causal mask; combine the two.

    Args:
        grouped: queries, ``(B, K, G T, D)``.
    Returns:
        As ``grouped``.
    Source: Dao and others 2022, https://arxiv.org/abs/2205.14135, section 3.1: softmax in blocks.
    """
    past = piece.stop if piece.start is None else piece.start
    parts = [_flash(grouped, *block) for block in reader.blocks(piece.begin, past)]
    if piece.start is not None:
        parts.append(_causal(grouped, count, *reader.read(piece.start, piece.stop)))
    out, weight = parts[0][0].float(), parts[0][1]
    for part, part_weight in parts[1:]:
        share = torch.sigmoid(part_weight - weight)[..., None]  # of the part, in the sum
        out = out.lerp(part.float(), share)
        weight = torch.logaddexp(weight, part_weight)
    return out.to(grouped.dtype)


def _causal(
    grouped: torch.Tensor, count: int, keys: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend from new positions to themselves. Arguments and result as ``_flash``."""
    rows, kv_heads, _, width = grouped.shape
    q = grouped.view(rows * kv_heads, -1, count, width)  # (B K, G, T, D)
    keys, values = (
        it.flatten(0, 1)[:, None].expand(-1, q.shape[1], -1, -1) for it in (keys, values)
    )
    out, weight = _flash(q, keys, values, causal=True)
    return out.reshape(grouped.shape), weight.reshape(grouped.shape[:-1])


def _flash(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, causal: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention, and the logarithm of the sum that it was divided by, float32.

    Args:
        q: ``(B, K, N, D)``.
    Returns:
        ``(B, K, N, D)`` and ``(B, K, N)``.
    """
    out, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, keys, values, 0.0, causal
    )
    return out, weight
