"""The contract of what a checkpoint may offer besides ``read``; it is checked where it is there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from llamakit.checkpoint import capabilities
from llamakit.checkpoint.checked_read import read_checked
from llamakit.checkpoint.dtypes import DTYPES
from llamakit.checkpoint.hf_names import is_rotated
from llamakit.checkpoint.rope_permutation import unpermute_rotary
from llamakit.errors import LlamakitError
from llamakit.protocols import Checkpoint, Parameter, RawRegion
from llamakit.testing.process_state import ContractError

if TYPE_CHECKING:
    from llamakit.checkpoint.dtypes import Array

Value = TypeVar("Value")


def check_capabilities(checkpoint: Checkpoint) -> None:
    """Check the optional methods that a whole checkpoint has.

    Raises:
        ContractError: one contradicts the index, the files or ``read``.
    """
    __tracebackhide__ = True
    for parameter in checkpoint.parameters.values():
        _check_regions(checkpoint, parameter)
        _check_quantized(checkpoint, parameter)
    _answer(lambda: capabilities.stored_names(checkpoint))
    _answer(lambda: capabilities.model_parallel_size(checkpoint))
    _answer(lambda: capabilities.weight_files(checkpoint))
    _answer(lambda: capabilities.oddities(checkpoint))
    _answer(lambda: capabilities.provenance_sources(checkpoint))
    _answer(lambda: capabilities.stored_as(checkpoint))
    if reason := _answer(lambda: capabilities.unsupported(checkpoint)):
        raise ContractError(f"unsupported() refuses a whole checkpoint: {reason}")
    _answer(lambda: capabilities.embedded_files(checkpoint))
    for target in ("meta", "huggingface"):
        _answer(partial(capabilities.companion_files, checkpoint, target))
    for finding in capabilities.deep_checks(checkpoint):
        if finding.kind == "fault":
            raise ContractError(
                f"deep_checks finds a fault in a whole checkpoint: {finding.sentence}"
            )


def _check_regions(checkpoint: Checkpoint, parameter: Parameter) -> None:
    """Check that the bytes of the regions are what ``read`` returns."""
    __tracebackhide__ = True
    import numpy as np

    regions = _answer(lambda: capabilities.raw_regions(checkpoint, parameter))
    if not regions:
        return
    array = np.concatenate(
        [np.atleast_1d(_map(region, parameter)) for region in regions], parameter.axis or 0
    )
    if regions[0].order == "huggingface" and is_rotated(parameter.name):
        array = unpermute_rotary(array, len(array) // checkpoint.params.head_dim)
    if array.tobytes() != read_checked(checkpoint, parameter.name).tobytes():
        raise ContractError(
            f"raw_regions({parameter.name!r}) are other bytes than read returns: conversions copy "
            "them as they are; return None where the file stores the values otherwise"
        )


def _check_quantized(checkpoint: Checkpoint, parameter: Parameter) -> None:
    """Check that integers and scales multiply out to what ``read`` returns."""
    __tracebackhide__ = True
    import numpy as np

    from llamakit.checkpoint.rounding import multiplied_out

    if _answer(lambda: capabilities.quantization(checkpoint, parameter.name)) is None:
        return
    weight = _answer(lambda: capabilities.read_quantized(checkpoint, parameter))
    read = read_checked(checkpoint, parameter.name).astype(np.float32)
    if not np.allclose(multiplied_out(weight), read, rtol=1e-2, atol=1e-6):
        raise ContractError(
            f"read_quantized({parameter.name!r}) multiplies out to other values than read returns"
        )


def _map(region: RawRegion, parameter: Parameter) -> Array:
    import numpy as np

    dtype = DTYPES[parameter.dtype]
    count = int(np.prod(region.shape, dtype=np.int64))
    return np.fromfile(region.path, dtype, count, offset=region.offset).reshape(region.shape)


def _answer(ask: Callable[[], Value]) -> Value:
    __tracebackhide__ = True
    try:
        return ask()
    except LlamakitError as error:
        raise ContractError(str(error)) from error
