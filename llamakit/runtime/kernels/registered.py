"""Kernels that plugins have registered: which this machine has, and what they pack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from llamakit.plugin_manager.contracts.kernels import packed_fault, product_fault
from llamakit.plugin_manager.failures import attributed
from llamakit.plugin_manager.plugin_loader import import_place
from llamakit.plugin_manager.registry import Entry
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.protocols import KernelSpec, PackedWeight
from llamakit.runtime.kernels.kernel import Kernel
from llamakit.runtime.kernels.rounded import Rounded


class PluginKernel(Kernel):
    """A third-party plugin's packed weight: what is wrong with it names the plugin."""

    def __init__(self, packed: PackedWeight, entry: Entry, outputs: int) -> None:
        super().__init__()
        self.name = entry.name
        self._packed, self._entry, self._outputs = packed, entry, outputs

    @property
    def nbytes(self) -> int:
        """How many bytes the packed weight takes."""
        return self._packed.nbytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., K)`` to ``(..., N)``."""
        rows = x.reshape(-1, x.shape[-1]).contiguous()  # (B, K)
        with attributed(self._entry):
            product = self._packed(rows)
        return self._checked(product, x, rows, self._outputs)

    def gated(self, x: torch.Tensor) -> torch.Tensor:
        """Return SiLU of the first half of the outputs times the second: ``(..., N / 2)``."""
        multiply = getattr(self._packed, "gated", None)
        if multiply is None:
            return super().gated(x)
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        with attributed(self._entry):
            product = multiply(rows)
        if product is None:
            return super().gated(x)
        return self._checked(product, x, rows, self._outputs // 2)

    def _checked(
        self, product: torch.Tensor, x: torch.Tensor, rows: torch.Tensor, outputs: int
    ) -> torch.Tensor:
        if fault := product_fault(product, rows, outputs):
            raise self._entry.breach(fault)
        return product.view(*x.shape[:-1], outputs)


def kernels_for(
    device: torch.device,
    dtype: torch.dtype,
    bits: int,
    rows: int,
    *,
    traceable: bool = False,
    kernels: Iterable[Entry] | None = None,
) -> Iterator[Entry]:
    """Yield the kernels that this machine has for weights of some bits, in order of registration.

    Args:
        dtype: of the activations.
        rows: how many sequences are decoded at the same time, at most.
        traceable: only those that torch.compile can trace.
        kernels: those to choose from; what is installed, if None.
    """
    traceable = traceable or device.type != "cpu"
    for entry in default_toolkit().kernels if kernels is None else kernels:
        spec: KernelSpec = entry.value
        least, most = spec.rows
        fits = spec.bits == bits and least <= rows and (most is None or rows <= most)
        fits = fits and device.type in spec.devices and str(dtype)[6:] in spec.dtypes
        if fits and (spec.traceable or not traceable) and not missing(entry):
            yield entry


def missing(entry: Entry) -> str:
    """Say in half a sentence what this machine lacks for a kernel; empty if nothing."""
    place = entry.value.missing
    if not place:
        return ""
    with attributed(entry):
        said = import_place(place)()
    if not isinstance(said, str):
        raise entry.breach(f"says {said!r:.60} of what is missing; expected a string")
    return said


def pack(entry: Entry, weight: torch.Tensor | Rounded, dtype: torch.dtype) -> Kernel | None:
    """Pack a weight with a kernel; None if it does not take it.

    Raises:
        PluginError: a third-party plugin's kernel fails, or returns something else.
    """
    with attributed(entry):
        packed = import_place(entry.value.pack)(weight, dtype)
    if packed is None or entry.source.builtin:
        kernel: Kernel | None = packed
        return kernel
    if fault := packed_fault(packed):
        raise entry.breach(fault)
    return PluginKernel(packed, entry, weight.shape[0])
