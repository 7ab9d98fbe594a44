"""The kernels that come with PyTorch: if none was measured, the first that fits is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl
from llamakit.protocols import KernelSpec

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar

_HOME = "llamakit.runtime.kernels.builtin"

ONEDNN_STORED = KernelSpec(
    f"{_HOME}:onednn_stored",
    bits=16,
    exactness="exact",
    dtypes=("bfloat16",),
    missing=f"{_HOME}:amx_missing",
    copies=False,
)
GEMV = KernelSpec(
    f"{_HOME}:gemv",
    bits=16,
    exactness="exact",
    dtypes=("bfloat16",),
    rows=(1, 1),
    missing=f"{_HOME}:onednn_missing",
    copies=False,
)
ONEDNN = KernelSpec(
    f"{_HOME}:onednn",
    bits=16,
    exactness="exact",
    dtypes=("bfloat16",),
    missing=f"{_HOME}:onednn_missing",
)
FBGEMM = KernelSpec(
    f"{_HOME}:fbgemm", bits=16, exactness="exact", missing=f"{_HOME}:fbgemm_missing"
)
PLAIN = KernelSpec(
    f"{_HOME}:plain",
    bits=16,
    exactness="exact",
    devices=("cpu", "cuda", "mps"),
    traceable=True,
)
FBGEMM_INT8 = KernelSpec(
    f"{_HOME}:fbgemm_int8",
    bits=8,
    exactness="rounded-activations",
    missing=f"{_HOME}:fbgemm_int8_missing",
)
ONEDNN_INT8 = KernelSpec(
    f"{_HOME}:onednn_int8",
    bits=8,
    exactness="rounded-activations",
    missing=f"{_HOME}:onednn_int8_missing",
)
INT8 = KernelSpec(
    f"{_HOME}:int8",
    bits=8,
    exactness="rounded-weights",
    devices=("cpu", "cuda", "mps"),
    traceable=True,
)
INT4 = KernelSpec(
    f"{_HOME}:int4",
    bits=4,
    exactness="rounded-weights",
    devices=("cpu", "cuda"),
    traceable=True,
)


@hookimpl
def register_kernels(kernels: Registrar[KernelSpec]) -> None:
    """Offer PyTorch's own linear, oneDNN, FBGEMM, and products in 8 and 4 bits."""
    kernels.register("onednn-stored", ONEDNN_STORED, help="bfloat16 as it is stored, with AMX")
    kernels.register("gemv", GEMV, help="bfloat16 as it is stored, for one sequence")
    kernels.register("onednn", ONEDNN, help="bfloat16 in oneDNN's blocks, for several")
    kernels.register("fbgemm", FBGEMM, help="float16 weights, float32 arithmetic")
    kernels.register("plain", PLAIN, help="PyTorch's own linear")
    kernels.register("fbgemm-int8", FBGEMM_INT8, help="8 by 8 bits, by FBGEMM")
    kernels.register("onednn-int8", ONEDNN_INT8, help="8 by 8 bits, by oneDNN")
    kernels.register("int8", INT8, help="8-bit weights, widened")
    kernels.register("int4", INT4, help="4-bit weights in groups of 32")
