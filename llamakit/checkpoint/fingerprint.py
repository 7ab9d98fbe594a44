"""Hashes of the weights of a checkpoint: a short name for a model, and what two hosts compare."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from llamakit.checkpoint.capabilities import weight_files
from llamakit.checkpoint.checked_read import read_checked
from llamakit.checkpoint.zip_index import read_directory
from llamakit.files.regular_file import open_regular
from llamakit.protocols import Checkpoint

if TYPE_CHECKING:
    from hashlib import _Hash

_READ_AXES = 2
"""Of more axes, as of experts, the first row is a matrix: only the shape counts then."""
_COMPARED_ROWS = 8
"""So many rows of each parameter two hosts compare: the first, the last, and between them."""


def fingerprint(checkpoint: Checkpoint) -> str:
    """Return 12 hexadecimal digits of a hash over the index and the first row of each parameter.

    It is the same whatever the folder and the number of shards. Finetunes of a model differ in it.
    Only some kB of each parameter are read.

    Raises: as ``read_checked``.
    """
    found = hashlib.sha256()
    _add_parameters(found, checkpoint, rows=1)
    return found.hexdigest()[:12]


def files_fingerprint(checkpoint: Checkpoint) -> str:
    """Return 12 hexadecimal digits of a hash that differs where two hosts have other files.

    It is over the sizes of the files, the CRC-32 of each tensor that .pth files hold, and rows that
    are evenly spread over each parameter. What has damaged a copy after it was written, between
    these rows, does not change it: ``verify`` finds that.

    Raises: as ``read_checked``.
    """
    found = hashlib.sha256()
    for path in weight_files(checkpoint):
        with open_regular(path) as file:
            found.update(f"{path.stat().st_size} {_stored_crcs(file)}\n".encode())
    _add_parameters(found, checkpoint, rows=_COMPARED_ROWS)
    return found.hexdigest()[:12]


def _stored_crcs(file: BinaryIO) -> list[int]:
    """Return the CRC-32 of each member of a zip; nothing of another file."""
    try:
        return [entry.crc for entry in read_directory(file)]
    except ValueError:
        return []


def _add_parameters(found: _Hash, checkpoint: Checkpoint, *, rows: int) -> None:
    """Add the index, and so many rows of each parameter, to a hash."""
    for name in sorted(checkpoint.parameters):
        parameter = checkpoint.parameters[name]
        found.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
        if len(parameter.shape) > _READ_AXES:
            continue
        if len(parameter.shape) < _READ_AXES:
            found.update(np.ascontiguousarray(read_checked(checkpoint, name)).tobytes())
            continue
        for start in sorted({round(it) for it in np.linspace(0, parameter.shape[0] - 1, rows)}):
            row = read_checked(checkpoint, name, start=start, stop=start + 1)
            found.update(np.ascontiguousarray(row).tobytes())
