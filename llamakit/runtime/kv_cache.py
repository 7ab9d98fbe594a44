"""Keys and values of the ids so far: allocated once, for what is asked."""

from __future__ import annotations

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
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.slots = slots
        self.length = length

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of one slot into another, in every layer."""
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]
