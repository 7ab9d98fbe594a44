"""What a file of tensors consists of, byte by byte, known before any value is.

A layout is worked out from names, dtypes and shapes alone. Whoever writes the file asks it for
the bytes around the values: ``head``, then for each tensor ``before``, the values, ``after``, and
at last ``tail``. Nothing that has been returned changes later, so a file is written once, from
its first byte to its last, and can be hashed on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llamakit.checkpoint.dtypes import itemsize


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a file that is to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    same_as: str | None = None
    """Another tensor of the file, whose values are this one's too: nothing more is stored."""

    @property
    def nbytes(self) -> int:
        """How many bytes its values take."""
        return math.prod(self.shape) * itemsize(self.dtype)


class FileLayout(Protocol):
    """The bytes of a file around the values of its tensors."""

    @property
    def stored(self) -> Sequence[TensorSpec]:
        """The tensors whose values the file holds, in order."""
        ...

    @property
    def nbytes(self) -> int:
        """The size of the whole file."""
        ...

    @property
    def needs_crc(self) -> bool:
        """Whether ``after`` and ``tail`` use the CRCs that they are given."""
        ...

    @property
    def head(self) -> bytes:
        """What the file begins with."""
        ...

    def before(self, index: int) -> bytes:
        """Return the bytes before the values of ``stored[index]``."""
        ...

    def after(self, index: int, crc: int) -> bytes:
        """Return the bytes after the values of ``stored[index]``, whose CRC-32 is ``crc``."""
        ...

    def tail(self, crcs: Sequence[int]) -> bytes:
        """Return what the file ends with, from the CRC-32 of all values of each tensor."""
        ...
