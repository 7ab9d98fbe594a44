"""The contract of kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit.plugin_manager.contracts.kernels import (
    exactness_fault,
    packed_fault,
    product_fault,
    spec_fault,
)
from llamakit.plugin_manager.plugin_loader import import_place
from llamakit.plugin_manager.registry import Entry, Source
from llamakit.protocols import KernelSpec
from llamakit.testing.factory_checks import said
from llamakit.testing.process_state import ContractError, check_fault, left_alone

if TYPE_CHECKING:
    import torch

    from llamakit.protocols import PackedWeight, Quantization, RoundedWeight

SHAPES = ((64, 96), (48, 256), (208, 128))
"""Outputs and inputs of the weights that are packed."""
ROWS = (0, 1, 2, 7, 8, 9, 33)


def round_weight(weight: torch.Tensor, kind: Quantization) -> RoundedWeight:
    """Round a weight as llamakit rounds those that kernels of 8 and 4 bits pack.

    Args:
        weight: ``(N, K)``; K is a multiple of 32 for ``int4``.
        kind: ``int8`` or ``int4``.
    """
    from llamakit.runtime.kernels import rounded

    return rounded.round_weight(weight, kind)


def check_kernel(spec: KernelSpec) -> None:
    """Check that a kernel packs weights and multiplies by them as llamakit needs it.

    It is checked on the CPU. Of a kernel that is for GPUs only, or that this machine lacks
    something for, no more than the ``KernelSpec`` is.

    Args:
        spec: what the plugin registers.

    Raises:
        AssertionError: a rule is broken; the sentence says which.
    """
    __tracebackhide__ = True
    check_fault("the kernel", spec_fault(spec))
    entry = Entry("kernel", "kernel", spec, "", Source("kit", "kit", "", builtin=False))
    try:
        lacks = import_place(spec.missing)() if spec.missing else ""
    except Exception as error:
        raise ContractError(f"{entry}: {spec.missing} fails: {said(error)}") from error
    if not isinstance(lacks, str):
        raise ContractError(f"{entry}: {spec.missing} returned {lacks!r:.60}; expected a string")
    if lacks or "cpu" not in spec.devices:
        return
    import torch

    with left_alone(str(entry)):
        taken = [
            _check(spec, getattr(torch, dtype), shape) for dtype in spec.dtypes for shape in SHAPES
        ]
        for dtype in spec.dtypes:
            _check_outliers(spec, getattr(torch, dtype))
    if not any(taken):
        raise ContractError(f"{entry} takes none of the weights of {SHAPES}")


def _check(spec: KernelSpec, dtype: torch.dtype, shape: tuple[int, int]) -> bool:
    """Check one weight; return whether the kernel takes it."""
    __tracebackhide__ = True
    import torch

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator).bfloat16()
    if dtype != torch.float32:
        weight = weight.to(dtype)
    packed, right = _packed(spec, weight, dtype)
    if packed is None:
        return False
    rows = torch.randn(max(ROWS), shape[1], generator=generator).to(dtype)
    with torch.inference_mode():
        for count in ROWS:
            _check_product(spec, packed, rows[:count], right)
            _check_gated(spec, packed, rows[:count], right)
        _check_alone(packed, rows[:3])
        _check_nan(packed, rows[:3])
    return True


def _packed(
    spec: KernelSpec, weight: torch.Tensor, dtype: torch.dtype
) -> tuple[PackedWeight | None, torch.Tensor]:
    """Pack a weight; return it with the one that it stands for, in float64."""
    __tracebackhide__ = True
    from llamakit.runtime.kernels import rounded

    held: torch.Tensor | rounded.Rounded = weight
    right = weight
    if spec.bits != 16:
        held = rounded.round_weight(weight, "int8" if spec.bits == 8 else "int4")
        right = held.multiplied_out()
    return _pack(spec, held, dtype), right.double()


def _pack(
    spec: KernelSpec, weight: torch.Tensor | RoundedWeight, dtype: torch.dtype
) -> PackedWeight | None:
    __tracebackhide__ = True
    try:
        packed: PackedWeight | None = import_place(spec.pack)(weight, dtype)
    except Exception as error:
        raise ContractError(
            f"the kernel fails to pack {tuple(weight.shape)}: {said(error)}"
        ) from error
    check_fault("the kernel", packed_fault(packed))
    return packed


def _check_product(
    spec: KernelSpec, packed: PackedWeight, x: torch.Tensor, right: torch.Tensor
) -> None:
    __tracebackhide__ = True
    before = x.clone()
    product = _product(packed, x)
    check_fault("the kernel", product_fault(product, x, len(right)))
    if not before.equal(x):
        raise ContractError("the kernel changes the activations that it is called with")
    expected = before.double() @ right.T
    check_fault("the kernel", exactness_fault(spec, product, x, expected))


def _check_gated(
    spec: KernelSpec, packed: PackedWeight, x: torch.Tensor, right: torch.Tensor
) -> None:
    __tracebackhide__ = True
    from torch.nn.functional import silu

    multiply = getattr(packed, "gated", None)
    if multiply is None:
        return
    try:
        product = multiply(x)
    except Exception as error:
        raise ContractError(f"the kernel's gated fails: {said(error)}") from error
    if product is not None:
        gate, others = (x.double() @ right.T).chunk(2, -1)
        check_fault("the kernel's gated", product_fault(product, x, len(right) // 2))
        expected = silu(gate) * others
        check_fault("the kernel's gated", exactness_fault(spec, product, x, expected))


def _check_outliers(spec: KernelSpec, dtype: torch.dtype) -> None:
    __tracebackhide__ = True
    import torch

    from llamakit.runtime.kernels import trial

    weight, x, expected = trial.outliers(spec.bits, dtype)
    packed = _pack(spec, weight, dtype)
    if packed is None:
        return
    with torch.inference_mode():
        fault = exactness_fault(spec, _product(packed, x), x, expected)
    check_fault("where two channels are outliers, the kernel", fault)


def _check_alone(packed: PackedWeight, x: torch.Tensor) -> None:
    __tracebackhide__ = True
    loud = x.clone()
    loud[1] *= 100
    if not _near(_product(packed, loud)[[0, 2]], _product(packed, x)[[0, 2]]):
        raise ContractError("the kernel's product of a row depends on the other rows of the batch")


def _check_nan(packed: PackedWeight, x: torch.Tensor) -> None:
    __tracebackhide__ = True
    spoiled = x.clone()
    spoiled[1, 3] = float("nan")
    product = _product(packed, spoiled)
    if product[1].isfinite().any() or not product[[0, 2]].isfinite().all():
        raise ContractError("the kernel loses NaN in a row, or spoils other rows by it")


def _product(packed: PackedWeight, x: torch.Tensor) -> torch.Tensor:
    __tracebackhide__ = True
    try:
        return packed(x)
    except Exception as error:
        raise ContractError(f"the kernel fails to multiply: {said(error)}") from error


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one.double() - other.double()).norm() <= 1e-3 * other.double().norm())
