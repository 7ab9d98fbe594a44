"""Linear and embedding layers, on one rank and tensor-parallel on several.

A layer multiplies with a kernel (``kernels/``). On several ranks each holds its slice, and
fairscale's collectives join the slices. Its layer classes are not used: they multiply by a plain
weight, and allocate all of it in float32 when they are constructed.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from llamakit.runtime.kernels.choice import Packer
from llamakit.runtime.kernels.kernel import Kernel
from llamakit.runtime.kernels.rounded import Weight


class Layers(Protocol):
    """Makes a layer from the weight that this rank holds, as it is stored."""

    def column(self, *weights: Weight) -> Kernel:
        """Split by output: ``(out/n, in)``, or several weights whose outputs are concatenated."""
        ...

    def output(self, weight: Weight) -> nn.Module:
        """Split by output: ``(V/n, dim)``; gathers the logits of all ranks."""
        ...

    def row(self, weight: Weight) -> nn.Module:
        """Split by input: ``(out, in/n)``; sums the outputs of all ranks."""
        ...

    def summed(self, inner: nn.Module) -> nn.Module:
        """Sum the outputs of all ranks of a layer that is made of several."""
        ...

    def embedding(self, weight: torch.Tensor, *, first: int | None = None) -> nn.Module:
        """Split by dimension, ``(V, dim/n)``, or by vocabulary, ``(V/n, dim)``.

        Args:
            first: the token of this rank's first row, if it is split by vocabulary.
        """
        ...


class PlainLayers:
    """One rank holds everything."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer

    def column(self, *weights: Weight) -> Kernel:
        """Make a linear layer."""
        return self._packer.pack(*weights)

    def output(self, weight: Weight) -> nn.Module:
        """Make the layer of the logits."""
        return self._packer.pack(weight, output=True)

    def row(self, weight: Weight) -> nn.Module:
        """Make a linear layer."""
        return self._packer.pack(weight)

    def summed(self, inner: nn.Module) -> nn.Module:
        """Return the layer itself."""
        return inner

    def embedding(self, weight: torch.Tensor, *, first: int | None = None) -> nn.Module:  # noqa: ARG002
        """Make an embedding."""
        return Embedding(weight.to(self._packer.device), self._packer.dtype)


class ParallelLayers:
    """Each rank holds its slice; fairscale's collectives join them."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer

    def column(self, *weights: Weight) -> Kernel:
        """Make a layer whose outputs stay with this rank."""
        return self._packer.pack(*weights)

    def output(self, weight: Weight) -> nn.Module:
        """Make a layer that gathers the outputs."""
        return Gathered(self._packer.pack(weight, output=True))

    def row(self, weight: Weight) -> nn.Module:
        """Make a layer that sums the outputs."""
        return Summed(self._packer.pack(weight))

    def summed(self, inner: nn.Module) -> nn.Module:
        """Make a layer that sums the outputs."""
        return Summed(inner)

    def embedding(self, weight: torch.Tensor, *, first: int | None = None) -> nn.Module:
        """Make an embedding that gathers the dimensions, or sums what the ranks look up."""
        placed = weight.contiguous().to(self._packer.device)
        embedding = Embedding(placed, self._packer.dtype)
        return Gathered(embedding) if first is None else Summed(OwnRows(embedding, first))


class Embedding(nn.Module):
    """Looks up the embedding of each token.

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


class OwnRows(nn.Module):
    """Looks up the tokens whose rows this rank holds; the embeddings of the others are zeros.

    Args:
        first: the token of the first row.
    Source: fairscale's ``VocabParallelEmbedding``.
    """

    def __init__(self, embedding: Embedding, first: int) -> None:
        super().__init__()
        self.embedding, self.first = embedding, first

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``(...)`` to ``(..., dim)``."""
        rows = tokens - self.first
        foreign = (rows < 0) | (rows >= len(self.embedding.weight))
        out: torch.Tensor = self.embedding(rows.masked_fill(foreign, 0))
        return out.masked_fill(foreign[..., None], 0)


class Gathered(nn.Module):
    """Gathers the outputs of all ranks along the last axis.

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
    """Sums the outputs of all ranks.

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
