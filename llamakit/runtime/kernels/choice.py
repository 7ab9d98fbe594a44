"""Choice of the kernel for a weight, by device, dtype, values and measured speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from llamakit.errors import UsageError
from llamakit.plugin_manager.registry import Entry
from llamakit.protocols import Quantization
from llamakit.runtime.kernels import quantized
from llamakit.runtime.kernels.kernel import Kernel, SideBySide
from llamakit.runtime.kernels.registered import kernels_for, pack
from llamakit.runtime.kernels.rounded import Rounded, Weight, concatenated, round_weight

BITS = {"int8": 8, "int4": 4}

QUANTIZATIONS = tuple(BITS)


@dataclass(frozen=True)
class Packer:
    """Packs the weights of one model, one after the other.

    Args:
        dtype: what the model computes in.
        quantize: None keeps every value; ``int8`` or ``int4`` rounds.
        rows: how many sequences are decoded at the same time, at most.
        fastest: by bits, the name of the kernel that was measured to be the fastest on this
            machine; without one, the first is taken that plugins have registered.
        traceable: only kernels that torch.compile can trace.
        mapped: leave weights in their mapped file where the kernel allows it, although a copy in
            memory is a tenth quicker to read: for a model larger than memory.
        kernels: those to choose from; what is installed, if None.
    """

    device: torch.device
    dtype: torch.dtype
    quantize: str | None = None
    rows: int = 8
    fastest: Mapping[int, str] = field(default_factory=dict)
    traceable: bool = False
    mapped: bool = False
    kernels: Iterable[Entry] | None = None

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
        if self.quantize is None:
            return self._exact(plain)
        weight = (torch.cat(plain) if len(plain) > 1 else plain[0]).to(self.device)
        kind = self.rounds_to(weight.shape, output=output)
        assert kind is not None
        return self._rounded(round_weight(weight, kind))

    def rounds_to(self, shape: Sequence[int], *, output: bool = False) -> Quantization | None:
        """Say how a weight of a shape is rounded, ``(N, K)`` of all that are packed together."""
        if self.quantize != "int4":
            return "int8" if self.quantize else None
        fits = not output and quantized.fits_int4(shape, self.device)
        return "int4" if fits else "int8"

    def _rounded(self, weight: Weight) -> Kernel:
        """Pack what is rounded; 4 bits that no kernel of the device takes are multiplied out."""
        assert isinstance(weight, Rounded)
        if weight.columns is None:
            placed = weight.to(self.device)
            for entry in self._kernels(BITS[weight.kind]):
                if kernel := pack(entry, placed, self.dtype):
                    return kernel
        return self._exact([weight.multiplied_out()])

    def _exact(self, weights: Sequence[torch.Tensor]) -> Kernel:
        whole: torch.Tensor | None = None
        for entry in self._kernels(16):
            if self.mapped and not entry.value.copies:
                parts = [pack(entry, weight, self.dtype) for weight in map(self._narrow, weights)]
                kernels = [kernel for kernel in parts if kernel is not None]
                if len(kernels) == len(weights):
                    return kernels[0] if len(kernels) == 1 else SideBySide(kernels)
                continue
            if whole is None:
                # One weight is copied too: what a kernel keeps is not to stay in the file.
                copied = len(weights) > 1 or not entry.value.copies
                whole = self._narrow(torch.cat(tuple(weights)) if copied else weights[0])
            if kernel := pack(entry, whole.to(self.device), self.dtype):
                return kernel
        raise UsageError(
            f"no kernel multiplies {self.dtype} weights on {self.device} here: is "
            "LLAMAKIT_DISABLE_PLUGINS set? `llamakit plugins` lists what is registered"
        )

    def _narrow(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a weight in the dtype of the activations, or as it is if that is float32."""
        return weight if self.dtype == torch.float32 else weight.to(self.dtype)

    def _kernels(self, bits: int) -> Iterator[Entry]:
        """Yield the kernels to try: the fastest, then in order of registration."""
        what = self.device, self.dtype, bits, self.rows
        entries = kernels_for(*what, traceable=self.traceable, kernels=self.kernels)
        fastest = self.fastest.get(bits)
        return iter(sorted(entries, key=lambda entry: entry.name != fastest))
