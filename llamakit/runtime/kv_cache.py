"""Keys and values of the ids so far: allocated once, for what is asked."""

from __future__ import annotations

import numpy
import torch


class KVCache:
    """Keys and values of a fixed number of slots, one sequence each.

    Args:
        n_layers: how many layers keep keys and values.
        slots: how many sequences at once.
        length: the longest sequence, in ids.
        n_kv_heads: of this rank.
    """

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
        shape = (n_layers, slots, n_kv_heads, length, head_dim)
        self.keys = _zeros(shape, dtype, device)
        self.values = _zeros(shape, dtype, device)
        self.slots = slots
        self.length = length

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of one slot into another, in every layer."""
        for kept in (self.keys, self.values):
            kept[:, target, :, :length] = kept[:, source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first ``length`` positions of two slots, in every layer."""
        for kept in (self.keys, self.values):
            for layer in kept:  # one layer at a time: what is held beside the cache stays small
                first = layer[one, :, :length].clone()
                layer[one, :, :length] = layer[other, :, :length]
                layer[other, :, :length] = first

    def fill(self, source: KVCache, length: int) -> None:
        """Take over the first ``length`` positions of the slots that both have."""
        slots = min(self.slots, source.slots)
        self.keys[:, :slots, :, :length] = source.keys[:, :slots, :, :length]
        self.values[:, :slots, :, :length] = source.values[:, :slots, :, :length]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Allocate zeros: a masked position still meets the softmax, and garbage may be NaN.

    On a CPU numpy asks the system for zeroed pages, so that memory is taken only as positions are
    used; torch would write it all at once.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    bits = {4: numpy.uint32, 2: numpy.uint16}[dtype.itemsize]
    return torch.from_numpy(numpy.zeros(shape, bits)).view(dtype)
