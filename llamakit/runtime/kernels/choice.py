"""Choice of the kernel for a weight, by device, dtype, values and measured speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llamakit.errors import UsageError
from llamakit.protocols import Quantization
from llamakit.runtime.kernels import half_precision, quantized
from llamakit.runtime.kernels.kernel import Kernel, Plain, SideBySide
from llamakit.runtime.kernels.rounded import Rounded, Weight, concatenated

QUANTIZATIONS = ("int8", "int4")


@dataclass(frozen=True)
class Packer:
    """Packs the weights of one model, one after the other.

    Args:
        dtype: what the model computes in.
        quantize: None keeps every value; ``int8`` or ``int4`` rounds.
        bfloat16: which kernel holds a bfloat16 weight on a CPU, if it can: ``gemv``, ``onednn``
            or ``fbgemm``, as measured on this machine.
        traceable: only kernels that torch.compile can trace.
        mapped: leave the weights of ``gemv`` in their mapped file, although a copy in memory is a
            tenth quicker to read: for a model larger than memory.
    """

    device: torch.device
    dtype: torch.dtype
    quantize: str | None = None
    bfloat16: str = "onednn"
    traceable: bool = False
    mapped: bool = False

    def __post_init__(self) -> None:
        if self.quantize not in (None, *QUANTIZATIONS):
            raise UsageError(f"--quantize {self.quantize!r}: expected {' or '.join(QUANTIZATIONS)}")
        if self.quantize == "int4" and self.device.type == "mps":
            raise UsageError("--quantize int4: not on MPS; try --quantize int8 or --device cpu")

    def pack(self, *weights: Weight, output: bool = False) -> Kernel:
        """Pack a weight, or several that share their input, for the kernel that fits.

        Args:
            weights: ``(N, K)`` as stored, on the CPU; packing copies them. Their outputs are
                concatenated. One that is rounded stays so, whatever ``quantize`` says.
            output: it is the layer of the logits, which has 8 bits where the others have 4.
        """
        kinds = {weight.kind if isinstance(weight, Rounded) else None for weight in weights}
        if len(kinds) > 1:
            return SideBySide([self.pack(weight, output=output) for weight in weights])
        if kinds != {None}:
            return self._rounded(concatenated(weights))
        plain = [weight for weight in weights if isinstance(weight, torch.Tensor)]
        if self._keeps_rows:
            stored = plain if self.mapped else [torch.cat(plain)]
            return half_precision.RowByRow(*(weight.to(self.dtype) for weight in stored))
        weight = torch.cat(plain) if len(plain) > 1 else plain[0]
        if self.quantize is None:
            return self._exact(weight)
        placed = weight.to(self.device)
        if self.rounds_to(weight.shape, output=output) == "int4":
            return quantized.Int4(placed)
        return self._int8(placed)

    def rounds_to(self, shape: Sequence[int], *, output: bool = False) -> Quantization | None:
        """Say how a weight of a shape is rounded, ``(N, K)`` of all that are packed together."""
        if self.quantize != "int4":
            return "int8" if self.quantize else None
        fits = not output and quantized.fits_int4(shape, self.device)
        return "int4" if fits else "int8"

    def _rounded(self, weight: Weight) -> Kernel:
        """Pack what is rounded; 4 bits that no operator of the device takes are multiplied out."""
        assert isinstance(weight, Rounded)
        if weight.kind == "int8":
            return self._int8(weight.to(self.device))
        if weight.columns is None and quantized.fits_int4(weight.shape, self.device):
            return quantized.Int4(weight.to(self.device))
        return self._exact(weight.multiplied_out())

    def _int8(self, weight: Weight) -> Kernel:
        if self._packs and quantized.has_int8_fbgemm():
            return quantized.Int8FBGEMM(weight)
        if self._packs and quantized.has_int8_onednn():
            return quantized.Int8OneDNN(weight)
        return quantized.Int8(weight, self.dtype)

    @property
    def _packs(self) -> bool:
        """Whether the CPU's opaque formats may be used."""
        return self.device.type == "cpu" and not self.traceable

    def _exact(self, weight: torch.Tensor) -> Kernel:
        if not self._packs:
            return Plain(weight.to(self.device, self.dtype))
        narrow = weight.to(self.dtype) if self.dtype != torch.float32 else weight
        if self._wants_half(narrow) and (kernel := _half(narrow)):
            return kernel
        if self.dtype == torch.bfloat16 and half_precision.has_onednn():
            return half_precision.OneDNN(narrow)
        return Plain(narrow.to(self.dtype))

    @property
    def _keeps_rows(self) -> bool:
        """Whether weights stay as they are, since few rows will be multiplied by them."""
        wanted = self.bfloat16 == half_precision.RowByRow.name and self.dtype == torch.bfloat16
        return wanted and self.quantize is None and self._packs and half_precision.has_onednn()

    def _wants_half(self, weight: torch.Tensor) -> bool:
        """Return whether float16 with float32 arithmetic is better, if the values fit."""
        if not half_precision.has_half() or weight.dtype == torch.float32:
            return False
        return self.dtype != torch.bfloat16 or self.bfloat16 == half_precision.Half.name


def _half(weight: torch.Tensor) -> Kernel | None:
    """Pack a weight in float16 if that holds every value, as it is or scaled."""
    if half_precision.fits_half(weight):
        return half_precision.Half(weight)
    scale = half_precision.half_scale(weight)
    return half_precision.Half(weight, scale) if half_precision.fits_half(weight, scale) else None
