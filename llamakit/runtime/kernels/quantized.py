"""Kernels that round a weight to 8 or 4 bits.

Shapes: N outputs, K inputs, G values that share a scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from llamakit.runtime.kernels.kernel import Kernel
from llamakit.runtime.kernels.rounded import Rounded, Weight
from llamakit.runtime.warning_filter import ignored_warnings

GROUP = 32
"""How many neighboring values share a scale and an offset in 4 bits."""

_MIDDLE = 128
"""The zero point of activations: x86 multiplies unsigned 8 bits by signed 8 bits."""

_STEP = 1 / 127
"""Between two activations of a row whose largest is 1."""


class Int8(Kernel):
    """8-bit weights, one scale an output; activations are not quantized.

    It works everywhere: the weight is widened to the activations' dtype during the multiplication.
    On a GPU ``--compile`` fuses the two.
    """

    name = "int8"

    def __init__(self, weight: Weight, dtype: torch.dtype) -> None:
        super().__init__()
        quantized, scale = to_int8(weight)
        self.weight = nn.Parameter(quantized, requires_grad=False)  # (N, K)
        self.scale = nn.Parameter(scale.to(dtype), requires_grad=False)  # (N,)

    @property
    def nbytes(self) -> int:
        """How many bytes the packed weight takes."""
        return self.weight.nbytes + self.scale.nbytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., K)`` to ``(..., N)``."""
        return nn.functional.linear(x, self.weight.to(x.dtype)) * self.scale


class Int8OneDNN(Kernel):
    """8-bit weights and 8-bit activations, one scale an output and one a row, by oneDNN.

    Each row is rounded by its own largest value, so it does not depend on its neighbors in the
    batch (PyTorch's ``quantized.linear_dynamic`` has one scale for all rows).
    """

    name = "onednn-int8"

    def __init__(self, weight: Weight) -> None:
        super().__init__()
        quantized, self.scale = to_int8(weight)
        self.packed = torch.ops.onednn.qlinear_prepack(quantized, None)
        self.zero_points = torch.zeros(len(quantized), dtype=torch.int64)
        self._nbytes = quantized.numel() + self.scale.nbytes + self.zero_points.nbytes

    @property
    def nbytes(self) -> int:
        """How many bytes the packed weight takes."""
        return self._nbytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., K)`` to ``(..., N)``."""
        rows = x.reshape(-1, x.shape[-1]).float()  # (B, K)
        step = rows.abs().amax(-1, keepdim=True).clamp_(min=1e-30).div_(127)  # (B, 1)
        rounded = (rows * step.reciprocal()).round_().to(torch.int8)
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
        return out.mul_(step).to(x.dtype).view(*x.shape[:-1], -1)


class Int8FBGEMM(Kernel):
    """8-bit weights and 8-bit activations, one scale an output and one a row, by FBGEMM.

    As ``Int8OneDNN``, and quicker for few rows. Its operator rounds activations itself, by one
    step for all rows: each row is brought to the same largest value before.
    """

    name = "fbgemm-int8"

    def __init__(self, weight: Weight) -> None:
        super().__init__()
        quantized, scale = to_int8(weight)
        self._nbytes = quantized.nbytes + scale.nbytes
        scaled = _per_channel(quantized, scale)
        del quantized  # that was copied
        self.packed = torch.ops.quantized.linear_prepack(scaled, None)

    @property
    def nbytes(self) -> int:
        """How many bytes the packed weight takes."""
        return self._nbytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., K)`` to ``(..., N)``."""
        rows = x.reshape(-1, x.shape[-1])  # (B, K)
        largest = rows.abs().amax(-1, keepdim=True).float().clamp_(min=1e-30)  # (B, 1)
        out: torch.Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / largest, _STEP, _MIDDLE, self.packed
        )
        scaled = torch.empty_like(out, dtype=x.dtype)  # rounded by the multiplication
        return torch.mul(out, largest, out=scaled).view(*x.shape[:-1], -1)


class Int4(Kernel):
    """4-bit weights in groups of 32, each with a scale and an offset; bfloat16 arithmetic."""

    name = "int4"

    def __init__(self, weight: Weight) -> None:
        super().__init__()
        pack, self._multiply = (
            (_pack_for_cpu, torch.ops.aten._weight_int4pack_mm_for_cpu)
            if _device(weight).type == "cpu"
            else (_pack_for_gpu, torch.ops.aten._weight_int4pack_mm)
        )
        packed, scales = _pack_in_parts(weight, pack)
        self.weight = nn.Parameter(packed, requires_grad=False)
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


def to_int8(
    weight: Weight, largest: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round each row to 255 steps.

    Args:
        weight: what is rounded; what already is, is returned.
        largest: the largest magnitude of each row, ``(N,)`` float32, where the weight is a part of
            longer rows.
    Returns:
        ``(N, K)`` int8 and ``(N,)`` float32, whose product is nearly the weight.
    """
    if isinstance(weight, Rounded):
        return weight.values, weight.scales
    quantized = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scale = torch.empty(len(weight), device=weight.device)
    for start in range(0, len(weight), _ROWS):  # in parts: a float32 copy of all would be large
        rows = slice(start, start + _ROWS)
        part = weight[rows].float()
        peak = part.abs().amax(1) if largest is None else largest[rows]
        # Of two tensors: a GPU divides by a number by multiplying with its rounded reciprocal.
        step = (peak / torch.full_like(peak, 127)).clamp_(min=1e-30)
        quantized[rows] = (part / step[:, None]).round_().to(torch.int8)
        scale[rows] = step
    return quantized, scale


def to_int4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round each group of a row to 16 steps between its least and its largest value.

    Returns:
        ``(N, K)`` int32 from 0 to 15, and ``(K/G, N, 2)`` bfloat16: the step, and the value of
        8. ``(value - 8) * step + middle`` is nearly the weight.
    """
    groups = weight.float().view(len(weight), -1, GROUP)  # (N, K/G, G)
    least, most = groups.amin(-1), groups.amax(-1)
    width = most - least
    step = (width / torch.full_like(width, 15)).clamp_(min=1e-8).to(torch.bfloat16)
    middle = (least + step.float() * 8).to(torch.bfloat16)
    values = (groups - middle.float()[..., None]) / step.float()[..., None] + 8
    scales = torch.stack((step.T, middle.T), -1)
    return values.round_().clamp_(0, 15).flatten(1).to(torch.int32), scales


def _int4_rows(weight: Weight, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Round some rows, or unpack what is rounded, as ``to_int4``."""
    if not isinstance(weight, Rounded):
        return to_int4(weight[start:stop])
    numbers = weight.numbers(start, stop).to(torch.int32)
    return numbers, weight.scales[start:stop].transpose(0, 1)


def _pack_in_parts(
    weight: Weight, pack: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round and pack some rows at a time, into one tensor."""
    rows, columns = weight.shape
    device = _device(weight)
    scales = torch.empty(columns // GROUP, rows, 2, dtype=torch.bfloat16, device=device)
    packed = torch.empty(0)
    for start in range(0, rows, _ROWS):
        stop = min(start + _ROWS, rows)
        values, scales[:, start:stop] = _int4_rows(weight, start, stop)
        part = pack(values)
        if start == 0:
            shape = (len(part) * rows // stop, *part.shape[1:])
            packed = torch.empty(shape, dtype=part.dtype, device=device)
        packed[len(packed) * start // rows :][: len(part)] = part
    return packed, scales


def _device(weight: Weight) -> torch.device:
    return weight.device if isinstance(weight, torch.Tensor) else weight.values.device


def _pack_for_cpu(values: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values, 1)
    return packed


def _pack_for_gpu(values: torch.Tensor) -> torch.Tensor:
    pairs = (values[:, ::2] << 4 | values[:, 1::2]).to(torch.uint8)
    packed: torch.Tensor = torch.ops.aten._convert_weight_to_int4pack(pairs, 8)
    return packed


_ROWS = 256
"""How many rows are rounded at a time: the operators pack in blocks that divide this."""


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
