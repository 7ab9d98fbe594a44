"""The base class of kernels, and the kernel that works everywhere."""

from __future__ import annotations

import torch
from torch import nn


class Kernel(nn.Module):
    """One weight, packed, and the multiplication by it."""

    name = ""
    """As ``llamakit doctor`` shows it."""

    @property
    def nbytes(self) -> int:
        """How many bytes the packed weight takes."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in)`` to ``(..., out)``, in the dtype of ``x``."""
        raise NotImplementedError


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
