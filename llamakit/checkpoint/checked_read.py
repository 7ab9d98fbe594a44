"""Reads from a checkpoint of any form, and checks what comes against its index.

The forms of plugins are wrong now and then, and an array of another shape may well fit: numpy
repeats a row, or a single value, over all that there is to fill.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llamakit.checkpoint.dtypes import DTYPES, Array
from llamakit.checkpoint.hf_checkpoint import HuggingFaceCheckpoint
from llamakit.checkpoint.meta_checkpoint import MetaCheckpoint
from llamakit.errors import LlamakitError, ParametersError, PluginError
from llamakit.protocols import Checkpoint, Parameter

_BUILT_IN = (MetaCheckpoint, HuggingFaceCheckpoint)


def read_checked(
    checkpoint: Checkpoint, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None
) -> Array:
    """Read one parameter, or a slice of it, and check its shape and dtype.

    Args: as ``Checkpoint.read``.
    Returns: what that returned.

    Raises:
        ParametersError: it is not what the index says.
        PluginError: a stranger's checkpoint failed otherwise. A built-in's failure is not hidden.
        DamagedFileError: the file ends before the bytes do.
    """
    parameter = checkpoint.parameters[name]
    bounds = {"axis": axis, "start": start, "stop": stop} if parameter.shape else {}
    try:
        found: Any = checkpoint.read(name, **bounds)  # type: ignore[arg-type]
    except (LlamakitError, OSError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if type(checkpoint) in _BUILT_IN:
            raise
        cause = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        raise PluginError(
            f"{checkpoint.path}: the checkpoint of the form {checkpoint.form!r} failed to read "
            f"{name}: {cause} (LLAMAKIT_DEBUG=1 shows where)"
        ) from error
    shape = _shape(parameter, axis, start, stop)
    is_array = isinstance(found, np.ndarray | np.generic)
    if not is_array or found.shape != shape or found.dtype != DTYPES.get(parameter.dtype):
        raise ParametersError(
            f"{checkpoint.path}: the checkpoint of the form {checkpoint.form!r} read {name} as "
            f"{_words(found)}; its index says {parameter.dtype} {shape}: tell the author of the "
            "plugin that opens it"
        )
    array: Array = found
    return array


def _shape(parameter: Parameter, axis: int, start: int, stop: int | None) -> tuple[int, ...]:
    """Return the shape of a slice."""
    shape = list(parameter.shape)
    if shape:
        shape[axis] = len(range(*slice(start, stop).indices(shape[axis])))
    return tuple(shape)


def _words(found: Any) -> str:
    """Say what was read: the dtype and shape of an array, the type of anything else."""
    if isinstance(found, np.ndarray | np.generic):
        return f"{found.dtype} {found.shape}"
    return f"{type(found).__name__}, which is no numpy array"
