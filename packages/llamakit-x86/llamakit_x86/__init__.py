"""Kernels for llamakit in C: AMX, AVX-512 and AVX2, for weights in 16, 8 and 4 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl
from llamakit.protocols import KernelSpec

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar

BF16 = KernelSpec(
    "llamakit_x86.bfloat16:pack",
    bits=16,
    exactness="exact",
    dtypes=("bfloat16", "float32"),
    missing="llamakit_x86.library:missing",
)
INT8 = KernelSpec(
    "llamakit_x86.weights:pack_int8",
    bits=8,
    exactness="rounded-activations",
    missing="llamakit_x86.library:missing",
)
INT4 = KernelSpec(
    "llamakit_x86.weights:pack_int4",
    bits=4,
    exactness="rounded-activations",
    missing="llamakit_x86.library:missing",
)


@hookimpl
def register_kernels(kernels: Registrar[KernelSpec]) -> None:
    """Offer products by weights of 16, 8 and 4 bits."""
    kernels.register("x86-bf16", BF16, help="bfloat16, AMX or AVX")
    kernels.register("x86-int8", INT8, help="8 bits by activations in 8, groups of 32")
    kernels.register("x86-int4", INT4, help="4 bits by activations in 8, groups of 32")
