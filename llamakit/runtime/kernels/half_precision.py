"""Kernels that keep every value of a 16-bit weight, for CPUs."""

from __future__ import annotations

import torch
from torch import nn

from llamakit.runtime.kernels.kernel import Kernel

_ROWS = 8
"""The number of rows that oneDNN chooses its blocks for; any number can be computed."""


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


class RowByRow(Kernel):
    """bfloat16 as it is stored, for a model that decodes one sequence at a time.

    One row is multiplied by PyTorch's own matrix-vector product, which reads at the memory's speed;
    PyTorch uses it if oneDNN is switched off. Several rows are multiplied by oneDNN, which then
    packs the weight again at each call. A mapped weight stays mapped.
    """

    name = "gemv"

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.contiguous(), requires_grad=False)

    @property
    def nbytes(self) -> int:
        """How many bytes the weight takes."""
        return self.weight.nbytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in)`` to ``(..., out)``."""
        if x.numel() != x.shape[-1]:
            return nn.functional.linear(x, self.weight)
        torch._C._set_mkldnn_enabled(False)
        try:
            return nn.functional.linear(x, self.weight)
        finally:
            torch._C._set_mkldnn_enabled(True)


class WeightFirst(RowByRow):
    """bfloat16 as it is stored, multiplied from the left (``W xᵀ``), for CPUs with AMX.

    oneDNN's AMX kernels were measured to read a weight that is the right operand, packed ahead or
    not, at two thirds of the speed that they reach when it is the left one. So few rows are
    quickest this way, and prompts about as quick as in packed blocks.
    """

    name = "onednn-stored"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in)`` to ``(..., out)``."""
        return _transposed(self._products(x)).view(*x.shape[:-1], -1)

    def gated(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is contiguous when transposed, which the next product takes as it is."""
        gate, others = self._products(x).chunk(2)  # (N/2, R) each
        return nn.functional.silu(gate).mul_(others).t().view(*x.shape[:-1], -1)

    def _products(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in)`` of R rows to ``(out, R)``."""
        rows = x.reshape(-1, x.shape[-1])
        alone = len(rows) == 1
        if alone:  # for a single one PyTorch would call another product
            rows = torch.cat((rows, rows))
        out = nn.functional.linear(self.weight, rows)
        return out[:, :1] if alone else out


class Half(Kernel):
    """float16 weights and float32 arithmetic, by FBGEMM.

    As exact as float32 throughout, at half of its bytes, for weights that float16 holds.

    Args:
        scale: a power of two for each output, ``(N,)`` float32, by which the weight is multiplied
            before float16 takes it, and the result divided; None: by 1.
    """

    name = "fbgemm"

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor | None = None) -> None:
        super().__init__()
        self._nbytes = weight.numel() * 2 + (0 if scale is None else scale.nbytes)
        wide = weight.to(torch.float32, copy=True)
        if scale is not None:
            wide.mul_(scale[:, None])
        self.packed = torch.ops.quantized.linear_prepack_fp16(wide, None)
        self.undo = None if scale is None else scale.reciprocal()

    @property
    def nbytes(self) -> int:
        """How many bytes the packed weight takes."""
        return self._nbytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in)`` to ``(..., out)``."""
        out: torch.Tensor = torch.ops.quantized.linear_dynamic_fp16(x.float(), self.packed)
        if self.undo is not None:
            out.mul_(self.undo)
        return out.to(x.dtype)


def _transposed(products: torch.Tensor) -> torch.Tensor:
    """``(N, R)`` to ``(R, N)``, contiguous."""
    if products.shape[1] < _ONEDNN_TRANSPOSES:
        return products.t().contiguous()
    out: torch.Tensor = products.to_mkldnn().transpose(0, 1).to_dense()
    return out


_ONEDNN_TRANSPOSES = 64
"""From how many rows oneDNN transposes more quickly than PyTorch, which does on one thread."""


def has_onednn() -> bool:
    """Say whether oneDNN computes in bfloat16 on this CPU."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_amx() -> bool:
    """Say whether this CPU multiplies tiles of bfloat16 (AMX), and PyTorch knows."""
    return has_onednn() and getattr(torch.cpu, "_is_amx_tile_supported", bool)()


def has_half() -> bool:
    """Say whether PyTorch was built with FBGEMM's float16 matrices."""
    return "fbgemm" in torch.backends.quantized.supported_engines


def fits_half(weight: torch.Tensor, scale: torch.Tensor | None = None) -> bool:
    """Say whether float16 holds every value of a weight, bit for bit, and all are finite.

    Args:
        scale: what each output's values are multiplied by before, as in ``Half``.
    """
    scales = torch.ones(len(weight)) if scale is None else scale
    return all(
        _fits(part.float() * factor[:, None])
        for part, factor in zip(torch.split(weight, _PART), torch.split(scales, _PART), strict=True)
    )


def half_scale(weight: torch.Tensor) -> torch.Tensor:
    """Return the powers of two, ``(N,)``, that bring each output's largest value near 2 ** 15.

    bfloat16 has fewer digits than float16 and reaches further down; scaled, values keep all their
    digits unless they are some 2 ** -32 of the largest of their output.
    """
    largest = torch.cat([part.abs().amax(1).float() for part in torch.split(weight, _PART)])
    exponent = torch.frexp(largest).exponent.clamp(-100, 100)
    return torch.ldexp(torch.ones(len(weight)), _TOP - exponent)


_PART = 1024
"""How many outputs are checked together: a float32 copy of all would be large."""

_TOP = 15


def _fits(part: torch.Tensor) -> bool:
    half = part.half()
    return bool((half == part).all()) and bool(half.isfinite().all())
