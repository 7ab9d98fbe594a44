"""The layers that hold weights, on one rank and on several.

A layer multiplies by means of a kernel (``kernels/``). On several ranks each holds its slice, and
what joins the slices is fairscale's. Its layer classes are not used: they multiply by a plain
weight, and allocate the whole of it in float32 when they are made.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from llamakit.runtime.kernels.choice import Packer


class Layers(Protocol):
    """Makes a layer from the weight that this rank holds, as it is stored."""

    def column(self, *weights: torch.Tensor) -> nn.Module:
        """Cut by output: ``(out/n, in)``, or several, whose outputs stand one behind the other."""
        ...

    def output(self, weight: torch.Tensor) -> nn.Module:
        """Cut by output: ``(V/n, dim)``; joins the logits of all ranks."""
        ...

    def row(self, weight: torch.Tensor) -> nn.Module:
        """Cut by input: ``(out, in/n)``; sums the outputs of all ranks."""
        ...

    def embedding(self, weight: torch.Tensor) -> nn.Module:
        """Cut by dimension: ``(V, dim/n)``; joins the outputs of all ranks."""
        ...


class PlainLayers:
    """One rank holds everything."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer

    def column(self, *weights: torch.Tensor) -> nn.Module:
        """Make a linear layer."""
        return self._packer.pack(*weights)

    def output(self, weight: torch.Tensor) -> nn.Module:
        """Make the layer of the logits."""
        return self._packer.pack(weight, output=True)

    def row(self, weight: torch.Tensor) -> nn.Module:
        """Make a linear layer."""
        return self._packer.pack(weight)

    def embedding(self, weight: torch.Tensor) -> nn.Module:
        """Make an embedding."""
        return Embedding(weight.to(self._packer.device), self._packer.dtype)


class ParallelLayers:
    """Each rank holds its slice; fairscale's collectives join them."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer

    def column(self, *weights: torch.Tensor) -> nn.Module:
        """Make a layer whose outputs stay with this rank."""
        return self._packer.pack(*weights)

    def output(self, weight: torch.Tensor) -> nn.Module:
        """Make a layer that gathers the outputs."""
        return Gathered(self._packer.pack(weight, output=True))

    def row(self, weight: torch.Tensor) -> nn.Module:
        """Make a layer that sums the outputs."""
        return Summed(self._packer.pack(weight))

    def embedding(self, weight: torch.Tensor) -> nn.Module:
        """Make an embedding that gathers the dimensions."""
        placed = weight.contiguous().to(self._packer.device)
        return Gathered(Embedding(placed, self._packer.dtype))


class Embedding(nn.Module):
    """A row of the weight for each id.

    The weight stays as it is stored: on a CPU it is the mapped file itself, of which only the rows
    that are looked up take memory.
    """

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.dtype = dtype

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``(...)`` to ``(..., dim)``."""
        return nn.functional.embedding(tokens, self.weight).to(self.dtype)


class Gathered(nn.Module):
    """Joins what all ranks compute along the last axis.

    Source: ``gather_output`` of fairscale's ``ColumnParallelLinear``.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(...)`` or ``(..., in)`` to ``(..., out)``."""
        from fairscale.nn.model_parallel.mappings import gather_from_model_parallel_region

        out: torch.Tensor = gather_from_model_parallel_region(self.inner(x))
        return out


class Summed(nn.Module):
    """Adds up what all ranks compute.

    Source: fairscale's ``RowParallelLinear``.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in/n)`` to ``(..., out)``."""
        from fairscale.nn.model_parallel.mappings import reduce_from_model_parallel_region

        out: torch.Tensor = reduce_from_model_parallel_region(self.inner(x))
        return out
