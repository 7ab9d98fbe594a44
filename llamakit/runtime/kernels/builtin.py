"""How the built-in kernels of ``plugins.kernels`` pack a weight, and what they need."""

from __future__ import annotations

import torch

from llamakit.runtime.kernels import half_precision, quantized
from llamakit.runtime.kernels.kernel import Kernel, Plain
from llamakit.runtime.kernels.rounded import Rounded

_NO_VNNI = "this CPU has no VNNI"


def plain(weight: torch.Tensor, dtype: torch.dtype) -> Kernel:
    """Keep a weight in the dtype that is computed in."""
    return Plain(weight.to(dtype))


def gemv(weight: torch.Tensor, _: torch.dtype) -> Kernel:
    """Keep a bfloat16 weight where it is."""
    return half_precision.RowByRow(weight)


def onednn_stored(weight: torch.Tensor, _: torch.dtype) -> Kernel:
    """Keep a bfloat16 weight where it is, as the left operand of oneDNN's products with AMX."""
    return half_precision.WeightFirst(weight)


def amx_missing() -> str:
    """Say what is missing for products of bfloat16 tiles."""
    return onednn_missing() or ("" if half_precision.has_amx() else "this CPU has no AMX")


def onednn(weight: torch.Tensor, _: torch.dtype) -> Kernel:
    """Pack a bfloat16 weight in oneDNN's blocks."""
    return half_precision.OneDNN(weight)


def onednn_missing() -> str:
    """Say what is missing for bfloat16 by oneDNN."""
    return "" if half_precision.has_onednn() else "this CPU has no bfloat16 in oneDNN"


def fbgemm(weight: torch.Tensor, _: torch.dtype) -> Kernel | None:
    """Pack a 16-bit weight in float16 if that holds every value, as it is or scaled."""
    if weight.dtype == torch.float32:
        return None
    if half_precision.fits_half(weight):
        return half_precision.Half(weight)
    scale = half_precision.half_scale(weight)
    fits = half_precision.fits_half(weight, scale)
    return half_precision.Half(weight, scale) if fits else None


def fbgemm_missing() -> str:
    """Say what is missing for FBGEMM's float16 matrices."""
    return "" if half_precision.has_half() else "PyTorch was built without FBGEMM"


def int8(weight: Rounded, dtype: torch.dtype) -> Kernel:
    """Keep a weight in 8 bits, to be widened."""
    return quantized.Int8(weight, dtype)


def fbgemm_int8(weight: Rounded, _: torch.dtype) -> Kernel:
    """Pack a weight in 8 bits for FBGEMM."""
    return quantized.Int8FBGEMM(weight)


def fbgemm_int8_missing() -> str:
    """Say what is missing for FBGEMM's products of 8 by 8 bits."""
    if quantized.has_int8_fbgemm():
        return ""
    return onednn_int8_missing() or "this PyTorch has no quantized tensors for FBGEMM"


def onednn_int8(weight: Rounded, _: torch.dtype) -> Kernel:
    """Pack a weight in 8 bits for oneDNN."""
    return quantized.Int8OneDNN(weight)


def onednn_int8_missing() -> str:
    """Say what is missing for oneDNN's products of 8 by 8 bits."""
    return "" if quantized.has_int8_onednn() else _NO_VNNI


def int4(weight: Rounded, _: torch.dtype) -> Kernel | None:
    """Pack a weight in 4 bits, if the operators of its device take its shape."""
    fits = quantized.fits_int4(weight.shape, weight.values.device)
    return quantized.Int4(weight) if fits else None
