"""The contract of kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from llamakit.protocols import Exactness, KernelSpec

if TYPE_CHECKING:
    import torch

DEVICES = ("cpu", "cuda", "mps")
DTYPES = ("bfloat16", "float16", "float32")
TOLERANCE = {"exact": 0.01, "rounded-weights": 0.02, "rounded-activations": 0.04}
"""Of the length of a product, what may be wrong; bfloat16 alone is good for 0.004."""


def spec_fault(spec: Any) -> str:
    """Say what is wrong with what a kernel is registered as, or nothing."""
    if not isinstance(spec, KernelSpec):
        return f"is a {type(spec).__name__}; expected a KernelSpec"
    for name, place in (("pack", spec.pack), ("missing", spec.missing)):
        if not is_place(place) and not (name == "missing" and place == ""):
            return f"has {place!r:.60} as {name}; expected 'module:function'"
    if spec.bits not in (16, 8, 4):
        return f"has {spec.bits!r:.60} bits; expected 16, 8 or 4"
    if spec.exactness not in get_args(Exactness):
        return (
            f"has the exactness {spec.exactness!r:.60}; expected {', '.join(get_args(Exactness))}"
        )
    if (spec.exactness == "exact") != (spec.bits == 16):
        return f"has {spec.bits} bits and is {spec.exactness}; 16 bits are exact, 8 and 4 are not"
    return (
        _names_fault("devices", spec.devices, DEVICES)
        or _names_fault("dtypes", spec.dtypes, DTYPES)
        or _rows_fault(spec.rows)
    )


def is_place(place: Any) -> bool:
    """Tell whether something names a place in a module, ``module:attribute``."""
    if not isinstance(place, str):
        return False
    module, _, attribute = place.partition(":")
    return all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")])


def packed_fault(packed: Any) -> str:
    """Say what is wrong with a packed weight, or nothing; None is one that was not taken."""
    if packed is None:
        return ""
    nbytes = getattr(packed, "nbytes", None)
    if not callable(packed) or not isinstance(nbytes, int) or nbytes < 0:
        return (
            f"packed a weight into a {type(packed).__name__}; expected None or a PackedWeight, "
            "which is called with activations and has nbytes"
        )
    return ""


def product_fault(product: Any, x: torch.Tensor, outputs: int) -> str:
    """Say what is wrong with what a packed weight returned, or nothing.

    Args:
        x: what it was called with, ``(B, K)``.
        outputs: N.
    """
    returned = type(product).__name__
    if isinstance(product, type(x)):
        shape = tuple(product.shape)
        if shape == (len(x), outputs) and product.dtype == x.dtype and product.device == x.device:
            return ""
        returned = f"{shape} {product.dtype} on {product.device}"
    return f"returned {returned}; expected {(len(x), outputs)} {x.dtype} on {x.device}"


def exactness_fault(
    spec: KernelSpec, product: torch.Tensor, x: torch.Tensor, expected: torch.Tensor
) -> str:
    """Say how far a product is off, if that is more than the kernel's exactness allows.

    Args:
        x: the activations.
        expected: the product in float64, by the weight that was packed.
    """
    wrong, length = float((product.double() - expected).norm()), float(expected.norm())
    allowed = TOLERANCE[spec.exactness]
    if wrong <= allowed * length:
        return ""
    return (
        f"is off by {wrong / length:.3f} of the length of its product of {len(x)} rows of "
        f"{x.dtype}; {spec.exactness} allows {allowed}"
    )


def _names_fault(what: str, names: Any, known: tuple[str, ...]) -> str:
    if isinstance(names, tuple) and names and all(name in known for name in names):
        return ""
    return f"has {names!r:.60} as {what}; expected a tuple of {', '.join(known)}"


def _rows_fault(rows: Any) -> str:
    if isinstance(rows, tuple) and len(rows) == 2 and type(rows[0]) is int:
        least, most = rows
        if least >= 1 and (most is None or (type(most) is int and most >= least)):
            return ""
    return f"has {rows!r:.60} as rows; expected the least from 1, and the greatest number or None"
