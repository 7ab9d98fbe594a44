"""Which kernel holds a weight: told from device, dtype, the weight itself and what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from llamakit.errors import UsageError
from llamakit.runtime.kernels import half_precision as sixteen
from llamakit.runtime.kernels import quantized as quantised
from llamakit.runtime.kernels.kernel import Kernel, Plain

QUANTISATIONS = ("int8", "int4")


@dataclass(frozen=True)
class Packer:
    """Packs the weights of one model, one after the other.

    Args:
        dtype: what the model computes in.
        quantize: None keeps every value; ``int8`` or ``int4`` rounds.
        bfloat16: which kernel holds a bfloat16 weight on a CPU, if it can: ``gemv``, ``onednn``
            or ``fbgemm``, as measured here.
        traceable: only kernels that torch.compile sees through.
        mapped: leave weights that ``gemv`` holds in their mapped file, though memory of our own
            is a tenth quicker to read: for a model that memory has no room for.
    """

    device: torch.device
    dtype: torch.dtype
    quantize: str | None = None
    bfloat16: str = "onednn"
    traceable: bool = False
    mapped: bool = False

    def __post_init__(self) -> None:
        if self.quantize not in (None, *QUANTISATIONS):
            raise UsageError(f"--quantize {self.quantize!r}: expected {' or '.join(QUANTISATIONS)}")
        if self.quantize == "int4" and self.device.type == "mps":
            raise UsageError("--quantize int4: not on MPS; try --quantize int8 or --device cpu")

    def pack(self, *weights: torch.Tensor, output: bool = False) -> Kernel:
        """Bring a weight into the form that its kernel wants, or several that share their input.

        Args:
            weights: ``(N, K)`` as stored, on the CPU; nothing of them is kept where they are
                packed. Their outputs stand one behind the other.
            output: the layer that makes logits: it stays in 8 bits where others take 4.
        """
        if self._keeps_rows:
            kept = weights if self.mapped else (torch.cat(weights),)
            return sixteen.RowByRow(*(weight.to(self.dtype) for weight in kept))
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        if self.quantize is None:
            return self._exact(weight)
        placed = weight.to(self.device)
        shape = tuple(weight.shape)
        if self.quantize == "int4" and not output and quantised.fits_int4(shape, self.device):
            return quantised.Int4(placed)
        if self._packs and quantised.has_int8_fbgemm():
            return quantised.Int8FBGEMM(placed)
        if self._packs and quantised.has_int8_onednn():
            return quantised.Int8OneDNN(placed)
        return quantised.Int8(placed, self.dtype)

    @property
    def _packs(self) -> bool:
        """Whether the CPU's opaque forms may be used."""
        return self.device.type == "cpu" and not self.traceable

    def _exact(self, weight: torch.Tensor) -> Kernel:
        if not self._packs:
            return Plain(weight.to(self.device, self.dtype))
        narrow = weight.to(self.dtype) if self.dtype != torch.float32 else weight
        if self._wants_half(narrow) and (kernel := _half(narrow)):
            return kernel
        if self.dtype == torch.bfloat16 and sixteen.has_onednn():
            return sixteen.OneDNN(narrow)
        return Plain(narrow.to(self.dtype))

    @property
    def _keeps_rows(self) -> bool:
        """Whether weights stay as they are, since few rows will be multiplied by them."""
        wanted = self.bfloat16 == sixteen.RowByRow.name and self.dtype == torch.bfloat16
        return wanted and self.quantize is None and self._packs and sixteen.has_onednn()

    def _wants_half(self, weight: torch.Tensor) -> bool:
        """Say whether float16 with float32 arithmetic is the better form, if the values fit."""
        if not sixteen.has_half() or weight.dtype == torch.float32:
            return False
        return self.dtype != torch.bfloat16 or self.bfloat16 == sixteen.Half.name


def _half(weight: torch.Tensor) -> Kernel | None:
    """Pack a weight in float16 if that holds every value, as it is or scaled."""
    if sixteen.fits_half(weight):
        return sixteen.Half(weight)
    scale = sixteen.half_scale(weight)
    return sixteen.Half(weight, scale) if sixteen.fits_half(weight, scale) else None
