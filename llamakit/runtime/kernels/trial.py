"""What kernels are tried with: activations of which two channels are outliers."""

from __future__ import annotations

from dataclasses import replace

import torch

from llamakit.plugin_manager.contracts.kernels import exactness_fault
from llamakit.plugin_manager.registry import Entry
from llamakit.runtime.kernels.registered import pack
from llamakit.runtime.kernels.rounded import Rounded, Weight, round_weight

SHAPE = (64, 288)
CHANNELS, TIMES = [7, 100], 100
"""Which channels are outliers, and how many times larger: as the largest in trained models."""


def random_weight(shape: tuple[int, int], bits: int, dtype: torch.dtype) -> Weight:
    """Return a weight as kernels of some bits pack it, the same at every call."""
    return _stored(_random(shape, 0).to(dtype), bits)


def copied(weight: Weight) -> Weight:
    """Copy a weight: a kernel may keep the one that it packs."""
    if isinstance(weight, torch.Tensor):
        return weight.clone()
    return replace(weight, values=weight.values.clone(), scales=weight.scales.clone())


def outliers(bits: int, dtype: torch.dtype) -> tuple[Weight, torch.Tensor, torch.Tensor]:
    """Return a weight, activations with outliers, and their product in float64.

    The weights of those channels are as much smaller, so that the others count as much as ever.
    """
    plain, x = _random(SHAPE, 0), _random((5, SHAPE[1]), 1)
    plain[:, CHANNELS] /= TIMES
    x[:, CHANNELS] *= TIMES
    weight, x = _stored(plain.to(dtype), bits), x.to(dtype)
    right = weight.multiplied_out() if isinstance(weight, Rounded) else weight
    return weight, x, x.double() @ right.double().T


def outlier_fault(entry: Entry, dtype: torch.dtype) -> str:
    """Say how far a kernel is off where there are outliers, if that is more than it may be."""
    weight, x, expected = outliers(entry.value.bits, dtype)
    kernel = pack(entry, weight, dtype)
    if kernel is None:
        return ""
    with torch.inference_mode():
        return exactness_fault(entry.value, kernel(x), x, expected)


def _random(shape: tuple[int, int], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _stored(weight: torch.Tensor, bits: int) -> Weight:
    return weight if bits == 16 else round_weight(weight, "int8" if bits == 8 else "int4")
