"""Reads from a checkpoint of any format, and checks what comes against its index.

The formats of plugins are wrong now and then, and an array of another shape may well fit: numpy
repeats a row, or a single value, over all that there is to fill.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from llamakit.checkpoint.dtypes import DTYPES, Array
from llamakit.errors import LlamakitError, ParametersError, PluginError
from llamakit.files.disk_errors import is_full_disk
from llamakit.protocols import Checkpoint, Parameter


def read_checked(
    checkpoint: Checkpoint, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None
) -> Array:
    """Read one parameter, or a slice of it, and check its shape and dtype.

    Args: as ``Checkpoint.read``.
    Returns: what that returned.

    Raises:
        ParametersError: it is not what the index says.
        PluginError: a third-party checkpoint failed otherwise. A built-in's failure is not hidden.
        DamagedFileError: the file ends before the bytes do.
    """
    parameter = checkpoint.parameters[name]
    bounds: dict[str, Any] = {"axis": axis, "start": start, "stop": stop} if parameter.shape else {}
    with naming_the_plugin(checkpoint, f"read {name}"):
        value: Any = checkpoint.read(name, **bounds)
    shape = slice_shape(parameter, axis, start, stop)
    is_array = isinstance(value, np.ndarray | np.generic)
    if not is_array or value.shape != shape or value.dtype != DTYPES.get(parameter.dtype):
        raise ParametersError(
            f"{describe(checkpoint)} read {name} as {_describe_array(value)}; its index says "
            f"{parameter.dtype} {shape}: tell the author of the plugin that opens it"
        )
    array: Array = value
    return array


@contextlib.contextmanager
def naming_the_plugin(checkpoint: Checkpoint, task: str) -> Iterator[None]:
    """Have whatever a third-party checkpoint raises meanwhile name its plugin.

    Args:
        task: what it failed to do, such as ``read norm.weight``.

    Raises:
        PluginError: it failed, and with no error of llamakit's, of memory or of a full disk.
    """
    try:
        yield
    except (LlamakitError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if is_builtin(checkpoint) or is_full_disk(error):
            raise
        cause = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        raise PluginError(
            f"{describe(checkpoint)} failed to {task}: {cause} (LLAMAKIT_DEBUG=1 shows where)"
        ) from error


def is_builtin(checkpoint: Checkpoint) -> bool:
    """Tell whether llamakit itself has opened a checkpoint."""
    return _package(checkpoint) == "llamakit"


def describe(checkpoint: Checkpoint) -> str:
    """Name a checkpoint, its format and the package that opens it, as the subject of a sentence."""
    opener = "" if is_builtin(checkpoint) else f" (opened by {_distribution(checkpoint)})"
    return f"{checkpoint.path}: the checkpoint of the format {checkpoint.form!r}{opener}"


def _package(checkpoint: Checkpoint) -> str:
    return type(checkpoint).__module__.partition(".")[0]


def _distribution(checkpoint: Checkpoint) -> str:
    """Name the installed package that a checkpoint's class is of, or else its module."""
    from importlib.metadata import packages_distributions  # slow to import, and seldom needed

    module = _package(checkpoint)
    return ", ".join(sorted({*packages_distributions().get(module, [module])}))


def slice_shape(parameter: Parameter, axis: int, start: int, stop: int | None) -> tuple[int, ...]:
    """Return the shape of the slice ``start:stop`` of a parameter along ``axis``."""
    shape = list(parameter.shape)
    if shape:
        shape[axis] = len(range(*slice(start, stop).indices(shape[axis])))
    return tuple(shape)


def _describe_array(value: Any) -> str:
    """Say what was read: the dtype and shape of an array, the type of anything else."""
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype} {value.shape}"
    return f"{type(value).__name__}, which is no numpy array"
