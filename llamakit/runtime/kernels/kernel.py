"""The base class of kernels, and the kernel that works everywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn


class Kernel(nn.Module, ABC):
    """One weight, packed, and the multiplication by it."""

    name = ""
    """As ``llamakit doctor`` shows it."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """How many bytes the packed weight takes."""

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in)`` to ``(..., out)``, in the dtype of ``x``."""

    def gated(self, x: torch.Tensor) -> torch.Tensor:
        """Return SiLU of the first half of the outputs times the second: ``(..., out / 2)``."""
        gate, others = self(x).chunk(2, -1)
        out: torch.Tensor = nn.functional.silu(gate) * others
        return out


class Plain(Kernel):
    """PyTorch's own linear, on the weight as it is."""

    name = "plain"

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    @property
    def nbytes(self) -> int:
        """How many bytes the weight takes."""
        return self.weight.nbytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in)`` to ``(..., out)``."""
        return nn.functional.linear(x, self.weight)


class SideBySide(Kernel):
    """Several kernels of one input, where what is stored rounded meets what is not."""

    name = "several"

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        super().__init__()
        self.kernels = nn.ModuleList(kernels)

    @property
    def nbytes(self) -> int:
        """How many bytes the weights take."""
        return sum(kernel.nbytes for kernel in self.kernels if isinstance(kernel, Kernel))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in)`` to the outputs of all, one after the other."""
        return torch.cat([kernel(x) for kernel in self.kernels], -1)
