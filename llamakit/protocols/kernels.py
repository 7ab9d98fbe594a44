"""Kernels, which hold a weight in a layout of their own and multiply activations by it.

Shapes: B rows of activations, N outputs, K inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch

    from llamakit.protocols.checkpoints import Quantization

__all__ = ["Exactness", "KernelSpec", "PackWeight", "PackedWeight", "RoundedWeight"]

Exactness = Literal["exact", "rounded-weights", "rounded-activations"]
"""``exact`` keeps every value of a weight; the last rounds the weights and the activations."""


class RoundedWeight(Protocol):
    """A weight in 8 or 4 bits, as llamakit rounds it: all kernels multiply by the same integers."""

    @property
    def kind(self) -> Quantization:
        """``int8`` or ``int4``."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, K)``."""
        ...

    @property
    def values(self) -> torch.Tensor:
        """int8: ``(N, K)`` int8. int4: ``(N, K/2)`` uint8, as ``QuantizedWeight`` describes it."""
        ...

    @property
    def scales(self) -> torch.Tensor:
        """int8: ``(N,)`` float32. int4: ``(N, K/32, 2)`` bfloat16, as ``QuantizedWeight`` says."""
        ...


class PackedWeight(Protocol):
    """One weight in the layout of a kernel.

    A row's product does not depend on the other rows of the batch. A row with NaN or infinity in it
    gives no finite number where the weight is not zero.

    It may have a method ``gated(x)`` as well, which is called for the two halves of a feed-forward
    packed together: it returns SiLU of the first half of the outputs times the second,
    ``(B, N / 2)``, or None where llamakit is to compute that from the product.
    """

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        ...

    def __call__(self, x: torch.Tensor, /) -> torch.Tensor:
        """Multiply ``(B, K)`` activations; return ``(B, N)`` in the dtype of ``x``.

        Args:
            x: contiguous, in one of the kernel's dtypes. B is any number from 0.
        """
        ...


PackWeight = Callable[[Any, "torch.dtype"], "PackedWeight | None"]
"""Packs a weight for activations of a dtype, on the device where it is multiplied.

For a kernel of 16 bits the weight is a tensor ``(N, K)``: in the dtype of the activations, or as it
is stored where that is float32. For one of 8 or 4 it is a ``RoundedWeight``. None: this kernel does
not take it, and another does. Several threads may call it at the same time."""


@dataclass(frozen=True)
class KernelSpec:
    """What a kernel can do, and where its code is: nothing of it is imported before it is used."""

    pack: str
    """The place of a ``PackWeight``, ``package.module:function``."""
    bits: Literal[16, 8, 4]
    """Of the weights that it takes; 16 stands for weights as they are stored, in 32 bits too."""
    exactness: Exactness
    devices: tuple[str, ...] = ("cpu",)
    """Of ``cpu``, ``cuda`` and ``mps``."""
    dtypes: tuple[str, ...] = ("bfloat16", "float16", "float32")
    """Of the activations."""
    rows: tuple[int, int | None] = (1, None)
    """The least and the greatest number of sequences decoded at once that it is meant for."""
    missing: str = ""
    """The place of a function without arguments that says in half a sentence what this machine
    lacks for it, or returns an empty string; empty: it works everywhere."""
    traceable: bool = False
    """Whether ``torch.compile`` traces it; on a GPU it has to."""
    copies: bool = True
    """Whether packing copies the weight. If not, a weight may stay in its mapped file."""
