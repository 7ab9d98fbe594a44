"""Files of tensors for tests: saved by torch, or by llamakit's writer where there is no torch."""

from __future__ import annotations

import zlib

import ml_dtypes
import numpy as np
from lazy_torch import HAS_TORCH, torch

from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.pth_writer import PthLayout


def save_pth(arrays, path):
    """Save a dict of arrays as Meta does, with ``torch.save`` if there is torch."""
    if HAS_TORCH:
        torch.save({name: to_torch(array) for name, array in arrays.items()}, path)
    else:
        write_pth(path, arrays)


def write_pth(path, arrays, shared=()):
    """Write arrays with llamakit's own layout, and the specs of ``shared`` that have no values."""
    specs = [TensorSpec(name, str(array.dtype), array.shape) for name, array in arrays.items()]
    layout = PthLayout(path.stem, [*specs, *shared])
    crcs = []
    with path.open("wb") as file:
        file.write(layout.head)
        for index, array in enumerate(arrays.values()):
            crcs.append(zlib.crc32(array.tobytes()))
            file.write(layout.before(index) + array.tobytes() + layout.after(index, crcs[-1]))
        file.write(layout.tail(crcs))
    assert path.stat().st_size == layout.nbytes
    return path


def to_torch(array):
    """Copy an array into a tensor, apart from llamakit."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())
