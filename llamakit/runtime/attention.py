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

from llamakit.runtime.attention_plan import Piece, SharedPrefix
from llamakit.runtime.int8_attention import attend_rounded, is_quick
from llamakit.runtime.kv_cache import Int8KVCache, KVCache, Place
from llamakit.runtime.rope import rotate


@dataclass(frozen=True)
class CacheWindow:
    """The part of the cache that a batch reads and writes: the same for every layer."""

    cache: KVCache
    place: Place
    rotation: torch.Tensor  # (B, T, 1, D/2, 2)
    pieces: tuple[Piece, ...]
    chunk_pieces: tuple[Piece, ...]  # of layers that attend within chunks
    prefixes: tuple[SharedPrefix, ...] = ()

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
        if self.prefixes:
            return self._attend_shared(layer, q)
        if len(pieces) == 1:
            return attend(q, self._reader(layer, pieces[0]), pieces[0])
        out = torch.empty(*q.shape[:2], q[0, 0].numel(), dtype=q.dtype, device=q.device)
        for piece in pieces:
            where = piece.rows, piece.queries
            out[where] = attend(q[where], self._reader(layer, piece), piece)
        return out

    def _attend_shared(self, layer: int, q: torch.Tensor) -> torch.Tensor:
        """Attend as ``attend``; a prefix that several rows share is read once."""
        grouped = _grouped(q, self.cache.n_kv_heads)
        out = torch.empty(grouped.shape, device=q.device)
        weight = torch.empty(grouped.shape[:-1], device=q.device)
        for piece in self.pieces:
            reader = self._reader(layer, piece)
            of_piece = _weighted(grouped[piece.rows], q.shape[1], reader, piece)
            out[piece.rows], weight[piece.rows] = of_piece
        for prefix in self.prefixes:
            rows = prefix.rows
            reader = Reader(self.cache, layer, slice(prefix.block, prefix.block + 1))
            own = out[rows], weight[rows]
            out[rows] = _combined([own, _of_prefix(grouped[rows], reader, prefix.length)])[0]
        return _ungrouped(out.to(q.dtype), q.shape[1])

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

    def stored(self, begin: int, stop: int) -> tuple[torch.Tensor, ...]:
        """Return some positions of all tensors of the cache, as they are stored."""
        tensors = self.cache.tensors
        return tuple(it[self.layer, self.slots, :, begin:stop] for it in tensors)

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
    count = q.shape[1]
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
    grouped = _grouped(q, kv_heads)
    if start is None and (piece.mask is not None or not _is_long(reader.cache, piece)):
        keys, values = reader.read(begin, stop)
        mask = _grouped_mask(piece, grouped.shape[2], count)
        attended = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
    else:
        attended = _weighted(grouped, count, reader, piece)[0].to(q.dtype)
    return _ungrouped(attended, count)


def _grouped(q: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """Have the group take the axis of the positions: no key or value is repeated.

    Args:
        q: ``(B, T, H, D)``.
    Returns:
        ``(B, K, G T, D)``.
    """
    return q.transpose(1, 2).reshape(len(q), kv_heads, -1, q.shape[-1])


def _ungrouped(attended: torch.Tensor, count: int) -> torch.Tensor:
    """Turn ``(B, K, G T, D)`` into ``(B, T, H D)``."""
    rows, _, _, width = attended.shape
    by_head = attended.view(rows, -1, count, width)  # (B, H, T, D)
    return by_head.transpose(1, 2).reshape(rows, count, -1)


def _grouped_mask(piece: Piece, length: int, count: int) -> torch.Tensor | None:
    """Return the mask for grouped queries: ``(B or 1, 1, G T, S)``."""
    mask = piece.mask
    return mask if mask is None or count == 1 else mask.repeat(1, 1, length // count, 1)


def _is_long(cache: KVCache, piece: Piece) -> bool:
    return cache.block is not None and piece.stop - piece.begin > cache.block


Part = tuple[torch.Tensor, torch.Tensor]
"""Attention to some positions, ``(B, K, N, D)``, and the logarithm of the sum that it was divided
by, ``(B, K, N)`` float32."""


def _weighted(grouped: torch.Tensor, count: int, reader: Reader, piece: Piece) -> Part:
    """Attend to one piece: to what came before, and to the new positions with a causal mask.

    Args:
        grouped: queries, ``(B, K, G T, D)``.
    """
    if piece.mask is not None:
        mask = _grouped_mask(piece, grouped.shape[2], count)
        return _flash(grouped, *reader.read(piece.begin, piece.stop), mask=mask)
    parts = _past(grouped, reader, piece.begin, piece.stop if piece.start is None else piece.start)
    if piece.start is not None:
        parts.append(_causal(grouped, count, *reader.read(piece.start, piece.stop)))
    return _combined(parts)


def _of_prefix(grouped: torch.Tensor, reader: Reader, length: int) -> Part:
    """Have the queries of all rows attend to the first positions of one slot."""
    rows, kv_heads, count, width = grouped.shape
    together = grouped.transpose(0, 1).reshape(1, kv_heads, rows * count, width)
    out, weight = _combined(_past(together, reader, 0, length))
    by_row = out.view(kv_heads, rows, count, width), weight.view(kv_heads, rows, count)
    return by_row[0].transpose(0, 1), by_row[1].transpose(0, 1)


def _past(grouped: torch.Tensor, reader: Reader, begin: int, stop: int) -> list[Part]:
    """Attend to positions that every query sees."""
    if begin == stop:
        return []
    if isinstance(reader.cache, Int8KVCache) and is_quick(grouped):
        return [attend_rounded(grouped, *reader.stored(begin, stop))]
    return [_flash(grouped, *block) for block in reader.blocks(begin, stop)]


def _combined(parts: list[Part]) -> Part:
    """Combine attention to several ranges of positions.

    Source: Dao and others 2022, https://arxiv.org/abs/2205.14135, section 3.1: softmax in blocks.
    """
    out, weight = parts[0]
    for part, part_weight in parts[1:]:
        share = torch.sigmoid(part_weight - weight)[..., None]  # of the part, in the sum
        out = out.float().lerp(part.float(), share)
        weight = torch.logaddexp(weight, part_weight)
    return out, weight


def _causal(grouped: torch.Tensor, count: int, keys: torch.Tensor, values: torch.Tensor) -> Part:
    """Attend from new positions to themselves."""
    rows, kv_heads, _, width = grouped.shape
    q = grouped.view(rows * kv_heads, -1, count, width)  # (B K, G, T, D)
    keys, values = (
        it.flatten(0, 1)[:, None].expand(-1, q.shape[1], -1, -1) for it in (keys, values)
    )
    out, weight = _flash(q, keys, values, causal=True)
    return out.reshape(grouped.shape), weight.reshape(grouped.shape[:-1])


def _flash(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    causal: bool = False,
    mask: torch.Tensor | None = None,
) -> Part:
    """Attend by PyTorch's operator.

    Args:
        q: ``(B, K, N, D)``.
        mask: ``(B or 1, 1, N, S)``.
    """
    out, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, keys, values, 0.0, causal, attn_mask=mask
    )
    return out, weight
