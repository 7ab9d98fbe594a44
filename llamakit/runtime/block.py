"""One layer of the Llama model, as one rank computes it.

Shapes: B rows, T new positions.
Source: the reference's ``llama/model.py``.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import rms_norm

from llamakit.runtime.attention import CacheWindow
from llamakit.runtime.kernels.kernel import Kernel


class RMSNorm(nn.Module):
    """Scale to unit root mean square, in float32.

    Source: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467
    """

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.eps = eps
        self._scale = weight * math.sqrt(weight.numel())
        self._floor = torch.tensor(math.sqrt(weight.numel() * eps), device=weight.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., dim)`` to the same."""
        if x.dtype is not torch.float32 or x.device.type != "cpu":
            return rms_norm(x, self.weight.shape, self.weight, self.eps)
        # Four operators where rms_norm has six, each of which costs as much as it computes.
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x / torch.hypot(length, self._floor)).mul_(self._scale)


class FeedForward(nn.Module):
    """SwiGLU. Source: Shazeer 2020, https://arxiv.org/abs/2002.05202.

    Args:
        w13: ``w1`` (the gate) and ``w3`` in one matrix, ``(2 hidden, dim)``.
    """

    def __init__(self, w13: Kernel, w2: nn.Module) -> None:
        super().__init__()
        self.w13, self.w2 = w13, w2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, T, dim)`` to the same."""
        out: torch.Tensor = self.w2(self.w13.gated(x))
        return out


class Block(nn.Module):
    """One layer."""

    def __init__(
        self,
        attention: nn.Module,
        feed_forward: nn.Module,
        attention_norm: RMSNorm,
        ffn_norm: RMSNorm,
    ) -> None:
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.attention_norm, self.ffn_norm = attention_norm, ffn_norm

    def forward(self, x: torch.Tensor, window: CacheWindow) -> torch.Tensor:
        """``(B, T, dim)`` to the same."""
        x = x + self.attention(self.attention_norm(x), window)
        x = x + self.feed_forward(self.ffn_norm(x))
        return x  # noqa: RET504
