"""A short name for the weights of a checkpoint, whatever its folder and number of shards."""

from __future__ import annotations

import hashlib

import numpy as np

from llamakit.checkpoint.checked_read import read_checked
from llamakit.protocols import Checkpoint

_READ_AXES = 2
"""Of more axes, as of experts, the first row is a matrix: only the shape counts then."""


def fingerprint(checkpoint: Checkpoint) -> str:
    """Return 12 hexadecimal digits of a hash over the index and the first row of each parameter.

    Finetunes of a model differ in them. Only some kB of each parameter are read.

    Raises: as ``read_checked``.
    """
    found = hashlib.sha256()
    for name in sorted(checkpoint.parameters):
        parameter = checkpoint.parameters[name]
        found.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
        if len(parameter.shape) <= _READ_AXES:
            stop = 1 if len(parameter.shape) == _READ_AXES else None
            row = read_checked(checkpoint, name, stop=stop)
            found.update(np.ascontiguousarray(row).tobytes())
    return found.hexdigest()[:12]
