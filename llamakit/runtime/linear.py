"""The layers that hold weights: plain on one rank, fairscale's on several."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn


class Layers(Protocol):
    """Makes a layer from the weight that this rank holds."""

    def column(self, weight: torch.Tensor, *, gather: bool = False) -> nn.Module:
        """Cut by output: ``(out/n, in)``. ``gather`` joins the outputs of all ranks."""
        ...

    def row(self, weight: torch.Tensor) -> nn.Module:
        """Cut by input: ``(out, in/n)``; sums the outputs of all ranks."""
        ...

    def embedding(self, weight: torch.Tensor) -> nn.Module:
        """Cut by dimension: ``(V, dim/n)``; joins the outputs of all ranks."""
        ...


class PlainLayers:
    """One rank holds everything."""

    def column(self, weight: torch.Tensor, *, gather: bool = False) -> nn.Module:  # noqa: ARG002
        """Make a linear layer."""
        return Linear(weight)

    def row(self, weight: torch.Tensor) -> nn.Module:
        """Make a linear layer."""
        return Linear(weight)

    def embedding(self, weight: torch.Tensor) -> nn.Module:
        """Make an embedding."""
        return Embedding(weight)


class Linear(nn.Module):
    """``x @ weight.T``, with a weight that is handed over instead of drawn and thrown away."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = frozen(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in)`` to ``(..., out)``."""
        return nn.functional.linear(x, self.weight)


class Embedding(nn.Module):
    """A row of the weight for each id."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = frozen(weight)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``(...)`` to ``(..., dim)``."""
        return nn.functional.embedding(tokens, self.weight)


class FairscaleLayers:
    """Each rank holds its slice, in fairscale's model-parallel layers.

    fairscale allocates the whole float32 weight when a layer is made, so layers are made one at
    a time and handed their weight at once: never more than one such allocation stands.

    Args:
        size: the model parallel size.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def column(self, weight: torch.Tensor, *, gather: bool = False) -> nn.Module:
        """Make a ``ColumnParallelLinear``."""
        from fairscale.nn.model_parallel.layers import ColumnParallelLinear

        rows, columns = weight.shape
        layer = ColumnParallelLinear(
            columns, rows * self.size, bias=False, gather_output=gather, init_method=_leave
        )
        layer.weight = frozen(weight)
        return layer  # type: ignore[no-any-return]

    def row(self, weight: torch.Tensor) -> nn.Module:
        """Make a ``RowParallelLinear``."""
        from fairscale.nn.model_parallel.layers import RowParallelLinear

        rows, columns = weight.shape
        layer = RowParallelLinear(
            columns * self.size, rows, bias=False, input_is_parallel=True, init_method=_leave
        )
        layer.weight = frozen(weight)
        return layer  # type: ignore[no-any-return]

    def embedding(self, weight: torch.Tensor) -> nn.Module:
        """Make a ``ParallelEmbedding``."""
        from fairscale.nn.model_parallel.layers import ParallelEmbedding

        rows, columns = weight.shape
        layer = ParallelEmbedding(rows, columns * self.size, init_method=_leave)
        layer.weight = frozen(weight)
        return layer  # type: ignore[no-any-return]


def frozen(weight: torch.Tensor) -> nn.Parameter:
    """Wrap a weight that is never trained."""
    return nn.Parameter(weight, requires_grad=False)


def _leave(weight: torch.Tensor) -> torch.Tensor:
    """Initialise nothing: the weight is replaced at once."""
    return weight
