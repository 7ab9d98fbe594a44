"""Reads rows of a matrix from where its bytes are, not through a mapping of the file.

What is read through a mapping counts as memory of the process for as long as the system likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llamakit.checkpoint.capabilities import raw_regions
from llamakit.checkpoint.checked_read import read_checked
from llamakit.checkpoint.dtypes import DTYPES, itemsize
from llamakit.errors import DamagedFileError
from llamakit.files.regular_file import open_regular
from llamakit.protocols import Checkpoint, Parameter, RawRegion

if TYPE_CHECKING:
    from llamakit.checkpoint.dtypes import Array


def read_rows(checkpoint: Checkpoint, parameter: Parameter, start: int, stop: int) -> Array:
    """Read the rows ``start:stop`` of a matrix whose rows are in one order in all formats.

    Raises:
        DamagedFileError: a file ends before the rows do.
        ParametersError, PluginError: as ``read_checked``.
    """
    regions = raw_regions(checkpoint, parameter)
    if not regions or stop <= start:
        return read_checked(checkpoint, parameter.name, start=start, stop=stop)
    if parameter.axis == 1:
        parts = [_rows_of(region, parameter.dtype, start, stop) for region in regions]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    parts, first = [], 0
    for region in regions:
        begin, end = max(start - first, 0), min(stop - first, region.shape[0])
        if begin < end:
            parts.append(_rows_of(region, parameter.dtype, begin, end))
        first += region.shape[0]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _rows_of(region: RawRegion, dtype: str, start: int, stop: int) -> Array:
    columns = region.shape[1]
    nbytes = columns * itemsize(dtype)
    with open_regular(region.path) as file:
        file.seek(region.offset + start * nbytes)
        data = file.read((stop - start) * nbytes)
    if len(data) != (stop - start) * nbytes:
        raise DamagedFileError(f"{region.path} has become shorter; start again.")
    array: Array = np.frombuffer(data, DTYPES[dtype]).reshape(stop - start, columns)
    return array
