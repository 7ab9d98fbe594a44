"""Kernels that round a weight to 8 or 4 bits.

Shapes: N outputs, K inputs, G values that share a scale.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import nn

from llamakit.runtime.kernels.kernel import Kernel
from llamakit.runtime.kernels.rounded import GROUP, PART, Rounded
from llamakit.runtime.warning_filter import ignored_warnings

_MIDDLE = 128
"""The zero point of activations: x86 multiplies unsigned 8 bits by signed 8 bits."""

_STEP = 1 / 127
"""Between two activations of a row whose largest is 1."""

OUTLIER = 40
"""How many times the mean magnitude of a row its largest has to be to count as an outlier: the
step of 8 bits is then a third of the mean."""


class Int8(Kernel):
    """8-bit weights, one scale an output; activations are not quantized.

    It works everywhere: the weight is widened to the activations' dtype during the multiplication.
    On a GPU ``--compile`` fuses the two.
    """

    name = "int8"

    def __init__(self, weight: Rounded, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.values, requires_grad=False)  # (N, K)
        self.scale = nn.Parameter(weight.scales.to(dtype), requires_grad=False)  # (N,)

    @property
    def nbytes(self) -> int:
        """How many bytes the packed weight takes."""
        return self.weight.nbytes + self.scale.nbytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., K)`` to ``(..., N)``."""
        return nn.functional.linear(x, self.weight.to(x.dtype)) * self.scale


class Int8ByInt8(Kernel):
    """8-bit weights and 8-bit activations, one scale an output and one a row.

    Each row is rounded by its own largest value, so it does not depend on its neighbors in the
    batch. A row with an outlier would lose its other values: what rounding leaves of it is rounded
    again, and multiplied as a row of its own.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., K)`` to ``(..., N)``."""
        rows = x.reshape(-1, x.shape[-1])  # (B, K)
        magnitudes = rows.abs()
        largest = magnitudes.amax(-1, keepdim=True).float().clamp_(min=1e-30)  # (B, 1)
        has_outlier = (largest > OUTLIER * magnitudes.mean(-1, keepdim=True)).squeeze(1)
        if has_outlier.any():
            out = self._in_two_parts(rows.float(), largest, has_outlier)
        else:
            out = self._multiply(rows, largest)
        return out.to(x.dtype).view(*x.shape[:-1], -1)

    def _in_two_parts(
        self, rows: torch.Tensor, largest: torch.Tensor, has_outlier: torch.Tensor
    ) -> torch.Tensor:
        step = largest * _STEP
        rounded = (rows / step).round_().mul_(step)
        rest = (rows - rounded)[has_outlier]  # (R, K)
        rows = torch.where(has_outlier[:, None], rounded, rows)
        most = rest.abs().amax(-1, keepdim=True).clamp_(min=1e-30)
        out = self._multiply(torch.cat((rows, rest)), torch.cat((largest, most)))
        out[: len(rows)][has_outlier] += out[len(rows) :]
        return out[: len(rows)]

    @abstractmethod
    def _multiply(self, rows: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
        """Multiply rows, ``(B, K)``, that are rounded by their largest magnitudes, ``(B, 1)``.

        Returns:
            ``(B, N)`` float32, or in the dtype of the rows.
        """


class Int8OneDNN(Int8ByInt8):
    """8 by 8 bits, by oneDNN; PyTorch's ``quantized.linear_dynamic`` has one scale for all rows."""

    name = "onednn-int8"

    def __init__(self, weight: Rounded) -> None:
        super().__init__()
        quantized, self.scale = weight.values, weight.scales
        self.packed = torch.ops.onednn.qlinear_prepack(quantized, None)
        self.zero_points = torch.zeros(len(quantized), dtype=torch.int64)
        self._nbytes = quantized.numel() + self.scale.nbytes + self.zero_points.nbytes

    @property
    def nbytes(self) -> int:
        """How many bytes the packed weight takes."""
        return self._nbytes

    def _multiply(self, rows: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
        step = largest / 127
        rounded = (rows.float() * step.reciprocal()).round_().to(torch.int8)
        # The quickest way to add 128 to signed 8 bits is to flip their highest bit.
        shifted = rounded.view(torch.uint8).bitwise_xor_(_MIDDLE)
        out: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            shifted,
            1.0,
            _MIDDLE,
            self.packed,
            self.scale,
            self.zero_points,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return out.mul_(step)


class Int8FBGEMM(Int8ByInt8):
    """8 by 8 bits, by FBGEMM, which is quicker for few rows.

    Its operator rounds activations itself, by one step for all rows: each row is brought to the
    same largest value before.
    """

    name = "fbgemm-int8"

    def __init__(self, weight: Rounded) -> None:
        super().__init__()
        quantized, scale = weight.values, weight.scales
        self._nbytes = quantized.nbytes + scale.nbytes
        scaled = _per_channel(quantized, scale)
        del quantized  # that was copied
        self.packed = torch.ops.quantized.linear_prepack(scaled, None)

    @property
    def nbytes(self) -> int:
        """How many bytes the packed weight takes."""
        return self._nbytes

    def _multiply(self, rows: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / largest, _STEP, _MIDDLE, self.packed
        )
        scaled = torch.empty_like(out, dtype=rows.dtype)  # rounded by the multiplication
        return torch.mul(out, largest, out=scaled)


class Int4(Kernel):
    """4-bit weights in groups of 32, each with a scale and an offset; bfloat16 arithmetic."""

    name = "int4"

    def __init__(self, weight: Rounded) -> None:
        super().__init__()
        pack, self._multiply = (
            (_pack_for_cpu, torch.ops.aten._weight_int4pack_mm_for_cpu)
            if weight.values.device.type == "cpu"
            else (_pack_for_gpu, torch.ops.aten._weight_int4pack_mm)
        )
        self.weight = nn.Parameter(_pack_in_parts(weight, pack), requires_grad=False)
        scales = weight.scales.transpose(0, 1).contiguous()
        self.scales = nn.Parameter(scales, requires_grad=False)  # (K/G, N, 2)

    @property
    def nbytes(self) -> int:
        """How many bytes the packed weight takes."""
        return self.weight.nbytes + self.scales.nbytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., K)`` to ``(..., N)``."""
        rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
        out: torch.Tensor = self._multiply(rows, self.weight, GROUP, self.scales)
        return out.to(x.dtype).view(*x.shape[:-1], -1)


def _per_channel(quantized: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Make a quantized tensor for FBGEMM of ``(N, K)`` int8 and ``(N,)`` float32."""
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    # PyTorch means to drop these tensors; has_int8_fbgemm is false where it has.
    with ignored_warnings("torch.quantize_per_tensor"):
        return torch._make_per_channel_quantized_tensor(quantized, scale.double(), zeros, 0)


def _pack_in_parts(weight: Rounded, pack: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Pack some rows at a time, into one tensor."""
    rows = len(weight.values)
    packed = torch.empty(0)
    for start in range(0, rows, PART):
        stop = min(start + PART, rows)
        part = pack(weight.numbers(start, stop).to(torch.int32))
        if start == 0:
            shape = (len(part) * rows // stop, *part.shape[1:])
            packed = torch.empty(shape, dtype=part.dtype, device=part.device)
        packed[len(packed) * start // rows :][: len(part)] = part
    return packed


def _pack_for_cpu(values: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values, 1)
    return packed


def _pack_for_gpu(values: torch.Tensor) -> torch.Tensor:
    pairs = (values[:, ::2] << 4 | values[:, 1::2]).to(torch.uint8)
    packed: torch.Tensor = torch.ops.aten._convert_weight_to_int4pack(pairs, 8)
    return packed


def has_int8_onednn() -> bool:
    """Say whether oneDNN multiplies 8 bits by 8 bits without overflow on this CPU (VNNI)."""
    return bool(torch.cpu._is_vnni_supported())


def has_int8_fbgemm() -> bool:
    """Return whether FBGEMM can do the same: it needs VNNI too, and PyTorch's quantized tensors."""
    engine = torch.backends.quantized.engine in ("x86", "fbgemm")
    return engine and has_int8_onednn() and hasattr(torch, "_make_per_channel_quantized_tensor")


def fits_int4(shape: Sequence[int], device: torch.device) -> bool:
    """Say whether the operators of a device take a weight of a shape, ``(N, K)``, in 4 bits."""
    rows, columns = shape
    if device.type == "cpu":
        return rows % 16 == 0 and columns % GROUP == 0
    if device.type == "cuda":
        return rows % 8 == 0 and columns % 1024 == 0
    return False
