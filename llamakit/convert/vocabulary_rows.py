"""The rows that an embedding or an output layer gets when the vocabulary grows."""

from __future__ import annotations

import re
import threading
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llamakit.errors import OptionError
from llamakit.printable import printable

if TYPE_CHECKING:
    from llamakit.checkpoint.dtypes import Array
    from llamakit.protocols import Checkpoint, Parameter

_NORMAL = re.compile(r"normal:([0-9.]+(?:e-?[0-9]+)?):([0-9]{1,18})")
_CHUNK_NBYTES = 8 << 20
_LARGEST_STD = 1000.0
"""Rows of more would hold values that float16 has no room for."""


@dataclass(frozen=True)
class RowInit:
    """How new rows are made."""

    kind: Literal["mean", "zero", "normal"]
    std: float = 0.0
    """Of ``normal``: the standard deviation; the mean is 0."""
    seed: int = 0


_PLAIN = {"mean": RowInit("mean"), "zero": RowInit("zero")}


def parse_init(text: str) -> RowInit:
    """Read ``mean``, ``zero`` or ``normal:STD:SEED``.

    Raises:
        OptionError: it is something else.
    """
    if text in _PLAIN:
        return _PLAIN[text]
    match = _NORMAL.fullmatch(text)
    try:
        std = float(match[1]) if match else 0.0
    except ValueError:
        std = 0.0
    if match is None or not 0 < std <= _LARGEST_STD:
        raise OptionError(
            f"--init {printable(text)!r} is none; expected mean, zero, or normal:STD:SEED such as "
            f"normal:0.02:1, with an STD up to {_LARGEST_STD:g}"
        )
    return RowInit("normal", std, int(match[2]))


class NewRows:
    """Makes the rows after those that a parameter has; the same whenever they are asked for.

    Args:
        checkpoint: that has the parameter.
        parameter: ``(rows, columns)``, of the source.
    """

    def __init__(self, checkpoint: Checkpoint, parameter: Parameter, init: RowInit) -> None:
        self._checkpoint, self._parameter, self._init = checkpoint, parameter, init
        self._mean: Array | None = None
        self._lock = threading.Lock()

    def make(self, start: int, stop: int) -> Array:
        """Make the rows ``start:stop``, counted from the first new one.

        Returns:
            ``(stop - start, columns)`` in the dtype of the parameter.
        """
        import numpy as np

        from llamakit.checkpoint.dtypes import DTYPES

        columns, dtype = self._parameter.shape[1], DTYPES[self._parameter.dtype]
        rows = np.zeros((stop - start, columns), dtype)
        if self._init.kind == "mean":
            rows[:] = self._mean_row().astype(dtype)
        elif self._init.kind == "normal":
            name = zlib.crc32(self._parameter.name.encode())
            for index in range(start, stop):  # each row of its own, however they are asked for
                generator = np.random.Generator(np.random.PCG64([self._init.seed, name, index]))
                rows[index - start] = (generator.standard_normal(columns) * self._init.std).astype(
                    dtype
                )
        return rows

    def _mean_row(self) -> Array:
        """Return the mean of all rows of the source, in float64; they are read once, in chunks."""
        import numpy as np

        from llamakit.checkpoint.dtypes import itemsize
        from llamakit.convert.stored_rows import read_rows

        with self._lock:
            if self._mean is None:
                rows, columns = self._parameter.shape
                step = max(1, _CHUNK_NBYTES // (columns * itemsize(self._parameter.dtype)))
                total = np.zeros(columns, np.float64)
                for start in range(0, rows, step):
                    stop = min(start + step, rows)
                    chunk = read_rows(self._checkpoint, self._parameter, start, stop)
                    total += chunk.astype(np.float32).sum(axis=0, dtype=np.float64)
                self._mean = total / rows
            return self._mean
