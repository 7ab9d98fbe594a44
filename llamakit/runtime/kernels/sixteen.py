"""Kernels that keep every value of a 16-bit weight, for CPUs."""

from __future__ import annotations

import torch

from llamakit.runtime.kernels.kernel import Kernel

_ROWS = 8
"""What oneDNN is told to expect when it chooses the blocks; any number of rows is computed."""


class OneDNN(Kernel):
    """bfloat16, in the blocks that oneDNN reads in order.

    PyTorch's plain linear of one bfloat16 row reads at a half of the memory's speed, and for a few
    rows it packs the whole weight again at each call.
    """

    name = "onednn"

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self._nbytes = weight.nbytes
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS)

    @property
    def nbytes(self) -> int:
        """How many bytes the packed weight takes."""
        return self._nbytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in)`` to ``(..., out)``."""
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "")
        return out


class Half(Kernel):
    """float16 weights and float32 arithmetic, by FBGEMM.

    As exact as float32 throughout, at half of its bytes, for weights that float16 holds.
    """

    name = "fbgemm"

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self._nbytes = weight.numel() * 2
        self.packed = torch.ops.quantized.linear_prepack_fp16(weight.float(), None)

    @property
    def nbytes(self) -> int:
        """How many bytes the packed weight takes."""
        return self._nbytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in)`` to ``(..., out)``."""
        out: torch.Tensor = torch.ops.quantized.linear_dynamic_fp16(x.float(), self.packed)
        return out.to(x.dtype)


def has_onednn() -> bool:
    """Say whether oneDNN computes in bfloat16 on this CPU."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_half() -> bool:
    """Say whether PyTorch was built with FBGEMM's float16 matrices."""
    return "fbgemm" in torch.backends.quantized.supported_engines


def fits_half(weight: torch.Tensor) -> bool:
    """Say whether float16 holds every value of a weight, bit for bit, and all are finite."""
    return all(_fits(part) for part in torch.split(weight, 1024))


def _fits(part: torch.Tensor) -> bool:
    half = part.half()
    return bool((half == part).all()) and bool(half.isfinite().all())
