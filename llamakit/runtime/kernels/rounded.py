"""Weights in 8 or 4 bits, and how they are rounded: N outputs, K inputs, G values a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from llamakit.protocols import Quantization

GROUP = 32
"""How many neighboring values share a scale and an offset in 4 bits."""

PART = 256
"""How many rows are rounded at a time: the operators pack in blocks that divide this."""


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
        """Return the values of the weight, ``(N, K)`` float32."""
        if self.kind == "int8":
            return self.values * self.scales[:, None]
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


def round_weight(weight: torch.Tensor, kind: Quantization) -> Rounded:
    """Round a weight ``(N, K)``, some rows at a time: copies in float32 are large."""
    if kind == "int8":
        return Rounded("int8", *to_int8(weight))
    rows, columns = weight.shape
    values = torch.empty(rows, columns // 2, dtype=torch.uint8, device=weight.device)
    groups = (rows, columns // GROUP, 2)
    scales = torch.empty(groups, dtype=torch.bfloat16, device=weight.device)
    for start in range(0, rows, PART):
        part = slice(start, start + PART)
        numbers, steps = to_int4(weight[part])
        values[part] = numbers[:, ::2] | numbers[:, 1::2] << 4
        scales[part] = steps.transpose(0, 1)
    return Rounded("int4", values, scales)


def to_int8(
    weight: torch.Tensor, largest: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round each row to 255 steps.

    Args:
        largest: the largest magnitude of each row, ``(N,)`` float32, where the weight is a part of
            longer rows.
    Returns:
        ``(N, K)`` int8 and ``(N,)`` float32, whose product is nearly the weight.
    """
    quantized = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scale = torch.empty(len(weight), device=weight.device)
    for start in range(0, len(weight), PART):  # in parts: a float32 copy of all would be large
        rows = slice(start, start + PART)
        part = weight[rows].float()
        peak = part.abs().amax(1) if largest is None else largest[rows]
        # Of two tensors: a GPU divides by a number by multiplying with its rounded reciprocal.
        step = (peak / torch.full_like(peak, 127)).clamp_(min=1e-30)
        quantized[rows] = (part / step[:, None]).round_().to(torch.int8)
        scale[rows] = step
    return quantized, scale


def to_int4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round each group of a row to 16 steps between its least and its largest value.

    Returns:
        ``(N, K)`` int32 from 0 to 15, and ``(K/G, N, 2)`` bfloat16: the step, and the value of
        8. ``(value - 8) * step + middle`` is nearly the weight.
    """
    groups = weight.float().view(len(weight), -1, GROUP)  # (N, K/G, G)
    least, most = groups.amin(-1), groups.amax(-1)
    width = most - least
    step = (width / torch.full_like(width, 15)).clamp_(min=1e-8).to(torch.bfloat16)
    middle = (least + step.float() * 8).to(torch.bfloat16)
    values = (groups - middle.float()[..., None]) / step.float()[..., None] + 8
    scales = torch.stack((step.T, middle.T), -1)
    return values.round_().clamp_(0, 15).flatten(1).to(torch.int32), scales
