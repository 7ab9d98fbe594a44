"""The Llama model, as one rank computes it.

Shapes: B rows, T new positions, S positions in the cache, H heads and K key/value heads of this
rank, D head dimension, V vocabulary.
Source: the reference's ``llama/model.py``.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import nn

from llamakit.protocols import FINAL_STATES
from llamakit.runtime.attention import CacheWindow
from llamakit.runtime.attention_plan import (
    CALL_NBYTES,
    CutLimits,
    Piece,
    plan,
    shared_prefixes,
)
from llamakit.runtime.block import Block, RMSNorm
from llamakit.runtime.kv_cache import Int8KVCache, KVCache, Place
from llamakit.runtime.rope import rotations


@dataclass(frozen=True)
class Batch:
    """New tokens of some rows whose cache slots are adjacent.

    Rows with fewer than T new tokens are padded at their end. The cache entries of the padding are
    never read, since the next tokens overwrite them.

    Args:
        tokens: ``B`` rows of ``T`` tokens each.
        starts: for each row, how many tokens the cache holds already.
        slot: the slot of the first row; the others follow.
        every_position: logits of all T positions instead of the last one's.
        lengths: how many of each row's tokens count; None: all T of every row.
        prefixes: as of ``shared_prefixes``; () if each row has all positions in its own slot.
    """

    tokens: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    slot: int = 0
    every_position: bool = False
    lengths: tuple[int, ...] | None = None
    prefixes: tuple[tuple[int, int], ...] = ()


class DecodingStep(Protocol):
    """An alternative implementation of steps that have one new token a row."""

    def takes(self, batch: Batch, cache: KVCache) -> bool:
        """Return whether it computes a batch."""
        ...

    def spend(self, seconds: float) -> None:
        """Add the time of a step that it might have taken."""
        ...

    def __call__(self, batch: Batch, cache: KVCache, device: torch.device) -> torch.Tensor:
        """Return the logits, ``(B, V)`` float32."""
        ...


class Transformer(nn.Module):
    """The decoder: tokens to logits.

    Args:
        n_kv_heads: of this rank.
        rope: the frequencies of the rotary embedding, ``(D/2,)``.
        chunk: some layers attend within chunks of so many tokens.
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
        rope: torch.Tensor,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.tok_embeddings, self.norm, self.output = tok_embeddings, norm, output
        self.layers = nn.ModuleList(layers)
        self.head_dim, self.n_kv_heads, self.rope = head_dim, n_kv_heads, rope
        self.chunk = chunk
        self._rotations: torch.Tensor | None = None
        self.kv_cache: str | None = None
        """``int8`` rounds keys and values in caches that are opened from now on."""
        self.decoder: DecodingStep | None = None
        """Computes steps of one new token a row, if set; see ``compiled_decoder``."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.norm.weight.dtype

    def new_cache(self, slots: int, length: int) -> KVCache:
        """Allocate keys and values for ``slots`` sequences of at most ``length`` tokens."""
        kind = Int8KVCache if self.kv_cache == "int8" else KVCache
        return kind(
            len(self.layers), slots, length, self.n_kv_heads, self.head_dim, self.dtype, self.device
        )

    @torch.inference_mode()
    def forward(self, batch: Batch, cache: KVCache) -> torch.Tensor:
        """Compute the logits of the new tokens and put their keys and values into the cache.

        Returns:
            ``(B, V)`` float32, or ``(B, T, V)`` with ``every_position``.
        """
        if self.decoder is not None and self.decoder.takes(batch, cache):
            self._rotations_for(cache.length)
            return self.decoder(batch, cache, self.device)
        started = time.perf_counter()
        *_, x = self._layers(batch, cache)
        if self.decoder is not None and len(batch.tokens[0]) == 1:
            self.decoder.spend(time.perf_counter() - started)
        return self._logits(self.norm(x if batch.every_position else self._last(x, batch)))

    @torch.inference_mode()
    def forward_observed(
        self, batch: Batch, cache: KVCache, layers: Container[int]
    ) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Compute a batch as ``forward``, and keep hidden states.

        Args:
            layers: after how many layers, from 0 for the embeddings; ``FINAL_STATES`` is after the
                final norm.
        Returns:
            The logits, and the hidden states of each of the layers, ``(B, T, dim)``.
        """
        states = {}
        for number, x in enumerate(self._layers(batch, cache)):
            if number in layers:
                states[number] = x
        x = self.norm(x)
        if FINAL_STATES in layers:
            states[FINAL_STATES] = x
        return self._logits(x if batch.every_position else self._last(x, batch)), states

    @torch.inference_mode()
    def logits_of(self, hidden: torch.Tensor, layer: int) -> torch.Tensor:
        """Return what the final norm and the output layer make of hidden states.

        Args:
            hidden: ``(T, dim)``.
            layer: as for ``forward_observed``.
        Returns:
            ``(T, V)`` float32.
        """
        return self._logits(hidden if layer == FINAL_STATES else self.norm(hidden))

    def _layers(self, batch: Batch, cache: KVCache) -> Iterator[torch.Tensor]:
        """Yield the embeddings, then what each layer makes of them, ``(B, T, dim)``."""
        x = self.embed(batch)
        window = self.window(batch, cache)
        yield x
        for layer in self.layers:
            x = layer(x, window)
            yield x

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(x).float()
        return logits

    def _last(self, x: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Select each row's last position without padding: ``(B, T, dim)`` to ``(B, dim)``."""
        if batch.lengths is None:
            return x[:, -1]
        rows = torch.arange(len(batch.lengths), device=x.device)
        return x[rows, torch.tensor(batch.lengths, device=x.device) - 1]

    def step(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        cache: KVCache,
        stop: int,
        counted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute one new token of each row with fixed shapes, for torch.compile.

        Args:
            tokens: ``(B, 1)``.
            positions: ``(B, 1)``.
            stop: how many positions of the cache are attended to.
            counted: ``(B, 1)``, False for rows that are padding; None: there is none.
        Returns:
            ``(B, V)`` float32.
        """
        assert self._rotations is not None
        place = replace(Place.of(0, None, positions), counted=counted)
        rotation = self._rotations[positions].unsqueeze(2)
        pieces, chunk_pieces = (
            (_whole(positions, stop, self._mask(positions, 0, stop, chunk)),)
            for chunk in (None, self.chunk)
        )
        window = CacheWindow(cache, place, rotation, pieces, chunk_pieces)
        x = self.tok_embeddings(tokens)
        for layer in self.layers:
            x = layer(x, window)
        logits: torch.Tensor = self.output(self.norm(x[:, -1])).float()
        return logits

    @torch.inference_mode()
    def first_nonfinite(self, batch: Batch, cache: KVCache) -> str:
        """Compute a batch again and return where NaN or infinity first appears."""
        x = self.embed(batch)
        if not x.isfinite().all():
            return "the embedding"
        window = self.window(batch, cache)
        for number, layer in enumerate(self.layers):
            x = layer(x, window)
            if not x.isfinite().all():
                return f"layer {number}"
        return "the final norm or the output layer"

    def embed(self, batch: Batch) -> torch.Tensor:
        """Return the embeddings of the new tokens, ``(B, T, dim)``."""
        out: torch.Tensor = self.tok_embeddings(torch.tensor(batch.tokens, device=self.device))
        return out

    def window(self, batch: Batch, cache: KVCache) -> CacheWindow:
        """Return the cache window of a batch, which is the same for every layer."""
        count = len(batch.tokens[0])
        starts = torch.tensor(batch.starts, device=self.device)
        positions = starts[:, None] + torch.arange(count, device=self.device)  # (B, T)
        start = batch.starts[0] if len(set(batch.starts)) == 1 else None
        place = Place.of(batch.slot, start, positions)
        rotation = self._rotations_for(cache.length)[positions].unsqueeze(2)
        pieces = self._plan(batch, positions, cache, None)
        is_chunked = self.chunk and max(batch.starts) + count > self.chunk
        chunk_pieces = self._plan(batch, positions, cache, self.chunk) if is_chunked else pieces
        shared = shared_prefixes(batch.prefixes)
        return CacheWindow(cache, place, rotation, pieces, chunk_pieces, shared)

    def _plan(
        self, batch: Batch, positions: torch.Tensor, cache: KVCache, chunk: int | None
    ) -> tuple[Piece, ...]:
        """Cut a batch into pieces of attention; on a GPU all of it is one, with a mask if needed.

        Args:
            chunk: attention stays within chunks of so many positions.
        """
        count, stop = len(batch.tokens[0]), max(batch.starts) + len(batch.tokens[0])
        prefixes = [length for _, length in batch.prefixes]

        def mask(rows: slice, begin: int, stop: int) -> torch.Tensor:
            aligned = len(set(batch.starts[rows])) == 1
            of_rows = positions[rows][:1] if aligned else positions[rows]
            masked = self._mask(of_rows, begin, stop, chunk)
            if len(set(prefixes[rows])) > 1:
                keys, ends = torch.arange(begin, stop), torch.tensor(prefixes[rows])
                masked = masked.masked_fill(keys < ends[:, None, None, None], float("-inf"))
            return masked

        if self.device.type == "cpu":
            limits = CutLimits(
                padding=CALL_NBYTES // cache.position_nbytes,
                rows=-(-torch.get_num_threads() // cache.n_kv_heads),
                block=cache.block or stop,
            )
            return plan(batch.starts, count, limits, mask, chunk, prefixes)
        rows = slice(0, len(batch.tokens))
        if chunk is None and stop == count > 1:
            return (Piece(rows, slice(0, count), 0, 0, stop),)
        aligned = count == 1 and len(set(batch.starts)) == 1 and chunk is None
        return (_whole(positions, stop, None if aligned else mask(rows, 0, stop)),)

    def _mask(
        self, positions: torch.Tensor, begin: int, stop: int, chunk: int | None = None
    ) -> torch.Tensor:
        """Return the causal mask: ``(B, T)`` positions to ``(B, 1, T, stop - begin)``."""
        keys = torch.arange(begin, stop, device=self.device)
        queries = positions[:, None, :, None]
        hidden = keys > queries
        if chunk is not None:
            hidden |= keys // chunk != queries // chunk
        shape = hidden.shape
        return torch.zeros(shape, dtype=self.dtype, device=self.device).masked_fill_(
            hidden, float("-inf")
        )

    def _rotations_for(self, length: int) -> torch.Tensor:
        if self._rotations is None or len(self._rotations) < length:
            self._rotations = rotations(self.rope, length, self.device)
        return self._rotations


def _whole(positions: torch.Tensor, stop: int, mask: torch.Tensor | None) -> Piece:
    """Return attention of a whole batch under a mask, from the first position of the cache on."""
    rows, count = positions.shape
    return Piece(slice(0, rows), slice(0, count), 0, None, stop, mask)
