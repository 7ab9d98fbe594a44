"""The KV cache: keys and values of the tokens so far, in a fixed number of slots."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from llamakit.files.system_calls import free_pages, private_memory


@dataclass(frozen=True)
class Place:
    """Where the new tokens of adjacent slots are put, in every layer.

    Args:
        start: the first new position, if it is the same for all rows and known on the host.
        positions: ``(B, T)``.
        rows: the slot of each row, ``(B, 1)``.
        counted: which rows are written, ``(B, 1)``; the others keep what the cache holds. None:
            all. Only without ``start``.
    """

    slots: slice
    start: int | None
    positions: torch.Tensor
    rows: torch.Tensor
    counted: torch.Tensor | None = None

    @classmethod
    def of(cls, first: int, start: int | None, positions: torch.Tensor) -> Place:
        """Return the place of new positions, ``(B, T)``, in the slots from ``first`` on."""
        slots = slice(first, first + len(positions))
        rows = torch.arange(slots.start, slots.stop, device=positions.device)[:, None]
        return cls(slots, start, positions, rows)


class KVCache:
    """Keys and values of a fixed number of slots, one sequence each.

    Args:
        n_layers: how many layers keep keys and values.
        slots: how many sequences at once.
        length: the longest sequence, in tokens.
        n_kv_heads: of this rank.
    """

    block: int | None = None
    """How many positions are best read at once; None: reading copies nothing."""

    def __init__(
        self,
        n_layers: int,
        slots: int,
        length: int,
        n_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.slots, self.length = slots, length
        self.n_kv_heads, self.head_dim, self.dtype = n_kv_heads, head_dim, dtype
        self.shape = (n_layers, slots, n_kv_heads, length)
        self.device = device
        self.tensors = self.allocate()
        """Each ``(layers, slots, K, length, …)``."""

    def allocate(self) -> tuple[torch.Tensor, ...]:
        """Allocate the tensors that hold keys and values."""
        shape = (*self.shape, self.head_dim)
        return tuple(_zeros(shape, self.dtype, self.device) for _ in range(2))

    @property
    def keys(self) -> torch.Tensor:
        """As they are stored, ``(layers, slots, K, length, D)``."""
        return self.tensors[0]

    @property
    def values(self) -> torch.Tensor:
        """As ``keys``."""
        return self.tensors[1]

    @property
    def position_nbytes(self) -> int:
        """How many bytes one position of one slot has, in one layer."""
        return sum(it[0, 0, :, 0].numel() * it.itemsize for it in self.tensors)

    def write(self, layer: int, place: Place, k: torch.Tensor, v: torch.Tensor) -> None:
        """Put new keys and values, ``(B, T, K, D)``, into one layer."""
        for cached, new in zip(self.tensors, (k, v), strict=True):
            _put(cached[layer], place, new)

    def read(
        self, layer: int, slots: slice, begin: int, stop: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values of some positions, ``(B, K, S, D)`` each."""
        keys, values = (it[layer][slots, :, begin:stop] for it in self.tensors)
        return keys, values

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy some positions of one slot into another, in every layer."""
        for cached in self.tensors:
            cached[:, target, :, start:stop] = cached[:, source, :, start:stop]

    def swap(self, one: int, other: int, start: int, stop: int) -> None:
        """Exchange some positions of two slots, in every layer."""
        for cached in self.tensors:
            for layer in cached:  # one layer at a time: the temporary copy stays small
                first = layer[one, :, start:stop].clone()
                layer[one, :, start:stop] = layer[other, :, start:stop]
                layer[other, :, start:stop] = first

    def release(self, slot: int, stop: int) -> None:
        """Return the memory of a slot's first positions to the system, as far as it takes it."""
        for cached in self.tensors:
            for layer in cached:
                for positions in layer[slot, :, :stop]:
                    free_pages(positions.data_ptr(), positions.nbytes)

    def page(self, slot: int, start: int, stop: int) -> tuple[torch.Tensor, ...]:
        """Return a copy of some positions of a slot, in the host's memory."""
        return tuple(it[:, slot, :, start:stop].to("cpu", copy=True) for it in self.tensors)

    def restore(self, slot: int, start: int, page: tuple[torch.Tensor, ...]) -> None:
        """Copy what ``page`` returned into a slot, from a position on."""
        for cached, saved in zip(self.tensors, page, strict=True):
            cached[:, slot, :, start : start + saved.shape[2]] = saved

    def fill(self, source: KVCache, slots: int, length: int) -> None:
        """Copy the first ``length`` positions of the first slots of another cache."""
        for cached, old in zip(self.tensors, source.tensors, strict=True):
            cached[:, :slots, :, :length] = old[:, :slots, :, :length]


class Int8KVCache(KVCache):
    """Keys and values rounded to 8 bits, with a scale for each head and position.

    The scale has the dtype that is computed in, and the values are rounded by the scale that is
    stored: a scale that was rounded itself would shift a whole vector.
    """

    block = 1024  # keys and values of a block, in 16 bits, stay in a core's cache

    def allocate(self) -> tuple[torch.Tensor, ...]:
        """Allocate keys, values, and the scales of both."""
        shape = (*self.shape, self.head_dim)
        rounded = [_zeros(shape, torch.int8, self.device) for _ in range(2)]
        scales = [_zeros((*self.shape, 1), self.dtype, self.device) for _ in range(2)]
        return (*rounded, *scales)

    def write(self, layer: int, place: Place, k: torch.Tensor, v: torch.Tensor) -> None:
        """Round new keys and values, ``(B, T, K, D)``, and put them into one layer."""
        keys, values, key_scales, value_scales = self.tensors
        for cached, scales, new in ((keys, key_scales, k), (values, value_scales, v)):
            rounded, scale = _round(new)
            _put(cached[layer], place, rounded)
            _put(scales[layer], place, scale)

    def read(
        self, layer: int, slots: slice, begin: int, stop: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a copy of the keys and values of some positions, ``(B, K, S, D)`` each."""
        keys, values, key_scales, value_scales = (
            it[layer][slots, :, begin:stop] for it in self.tensors
        )
        return keys.to(self.dtype) * key_scales, values.to(self.dtype) * value_scales


def _round(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return 8-bit values and their scales: ``(B, T, K, D)`` to the same and ``(B, T, K, 1)``.

    NaN and infinity make the scale NaN or infinite, and with it what is read.
    """
    largest = x.abs().amax(-1, keepdim=True)
    scale = (largest / 127).clamp_min(torch.finfo(x.dtype).tiny)
    return (x.float() / scale).round_().clamp_(-127, 127).to(torch.int8), scale


def _put(cached: torch.Tensor, place: Place, new: torch.Tensor) -> None:
    """Put ``(B, T, K, X)`` into the slots of one layer, ``(slots, K, length, X)``."""
    if place.start is not None:
        stop = place.start + new.shape[1]
        cached[place.slots, :, place.start : stop] = new.transpose(1, 2)
        return
    if place.counted is not None:
        held = cached[place.rows, :, place.positions]  # (B, T, K, X)
        new = torch.where(place.counted[..., None, None], new, held)
    cached[place.rows, :, place.positions] = new


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Allocate zeros: masked positions take part in the softmax, and garbage may be NaN.

    On a CPU the system gives zeroed pages as positions are written, and reserves none before: the
    128 Ki positions of a Llama 3.1 8B would be 17 GB a slot. numpy asks for large pages, each of
    which thousands of positions of one head share.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    count = math.prod(shape)
    memory = private_memory(max(1, count) * dtype.itemsize, reserve=False)
    return torch.frombuffer(memory, dtype=dtype)[:count].view(shape)
