"""Weights that are rounded before they are packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from llamakit.protocols import Quantization


@dataclass(frozen=True)
class Rounded:
    """A weight that is rounded already, as ``protocols.QuantizedWeight`` describes it."""

    kind: Quantization
    values: torch.Tensor
    scales: torch.Tensor
    columns: slice | None = None
    """Those that count, where a slice of 4 bits begins or ends within a group."""

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight: ``(N, K)``."""
        rows, columns = self.values.shape
        return rows, columns * (2 if self.kind == "int4" else 1)

    def to(self, device: torch.device) -> Rounded:
        """Move it to a device."""
        return replace(self, values=self.values.to(device), scales=self.scales.to(device))

    def numbers(self, start: int, stop: int) -> torch.Tensor:
        """Return some rows of a weight in 4 bits, ``(N, K)`` uint8 from 0 to 15."""
        pairs = self.values[start:stop]
        return torch.stack((pairs & 15, pairs >> 4), -1).flatten(1)

    def multiplied_out(self) -> torch.Tensor:
        """Return the values of a weight in 4 bits, ``(N, K)`` float32."""
        steps, middles = self.scales.float().unbind(-1)  # (N, K/G)
        groups = self.numbers(0, len(self.values)).view(*steps.shape, -1).float() - 8
        return (groups * steps[..., None] + middles[..., None]).flatten(1)[:, self.columns or ...]


Weight = torch.Tensor | Rounded


def concatenated(weights: Sequence[Weight]) -> Weight:
    """Join weights of one kind along their outputs."""
    if len(weights) == 1:
        return weights[0]
    plain = [weight for weight in weights if isinstance(weight, torch.Tensor)]
    rounded = [weight for weight in weights if isinstance(weight, Rounded)]
    if plain:
        return torch.cat(plain)
    values, scales = ([getattr(w, part) for w in rounded] for part in ("values", "scales"))
    return Rounded(rounded[0].kind, torch.cat(values), torch.cat(scales))
