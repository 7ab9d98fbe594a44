"""The KV cache: keys and values of the tokens so far, in a fixed number of slots."""

from __future__ import annotations

import math

import torch

from llamakit.files.system_calls import private_memory


class KVCache:
    """Keys and values of a fixed number of slots, one sequence each.

    Args:
        n_layers: how many layers keep keys and values.
        slots: how many sequences at once.
        length: the longest sequence, in tokens.
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
        for cached in (self.keys, self.values):
            cached[:, target, :, :length] = cached[:, source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first ``length`` positions of two slots, in every layer."""
        for cached in (self.keys, self.values):
            for layer in cached:  # one layer at a time: the temporary copy stays small
                first = layer[one, :, :length].clone()
                layer[one, :, :length] = layer[other, :, :length]
                layer[other, :, :length] = first

    def fill(self, source: KVCache, length: int) -> None:
        """Copy the first ``length`` positions of the slots that both caches have."""
        slots = min(self.slots, source.slots)
        self.keys[:, :slots, :, :length] = source.keys[:, :slots, :, :length]
        self.values[:, :slots, :, :length] = source.values[:, :slots, :, :length]


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
