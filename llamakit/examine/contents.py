"""What is looked for in the bytes of a file of tensors while they pass by."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from llamakit.checkpoint.dtypes import DTYPES, Array, itemsize
from llamakit.checkpoint.tensor_file import StoredTensor, TensorFile
from llamakit.checkpoint.zip_index import Member

_EXPONENTS = {
    "float64": ("<u8", 0x7FF0000000000000),
    "float32": ("<u4", 0x7F800000),
    "float16": ("<u2", 0x7C00),
    "bfloat16": ("<u2", 0x7F80),
    "float8_e5m2": ("<u1", 0x7C),
    "complex64": ("<u4", 0x7F800000),
    "complex128": ("<u8", 0x7FF0000000000000),
}
"""For each dtype an unsigned integer, and the bits that are all set in NaN and infinity alone."""

_WITHOUT = ("rope.freqs", "rotary_emb.inv_freq")
"""Tables that are no parameters; nothing reads their values."""

_STEP_NBYTES = 256 << 10
"""What is scanned at a time: it fits in a core's own cache."""


class MemberCrcs:
    """The CRC-32 of every member of a zip, against what its directory says."""

    def __init__(self, members: Iterable[Member]) -> None:
        self._left = sorted(members, key=lambda member: member.offset, reverse=True)
        self._crc = 0
        self.checked = 0
        """How many members have been read completely."""
        self.wrong: list[tuple[Member, int]] = []
        """Each member whose CRC-32 is another, and that CRC-32."""

    def update(self, offset: int, block: memoryview) -> None:
        """Take the next block."""
        end = offset + len(block)
        while self._left:
            member = self._left[-1]
            stop = member.offset + member.nbytes
            if stop > offset:
                part = block[max(member.offset - offset, 0) : stop - offset]
                self._crc = zlib.crc32(part, self._crc)
            if stop > end:
                return
            self._finish(self._left.pop())

    def unread(self) -> list[Member]:
        """Return the members that the file ended before."""
        return self._left[::-1]

    def _finish(self, member: Member) -> None:
        self.checked += 1
        if self._crc != member.crc:
            self.wrong.append((member, self._crc))
        self._crc = 0


@dataclass
class Counts:
    """How many values are no numbers."""

    nan: int = 0
    infinite: int = 0

    def add(self, values: Array) -> None:
        """Count in an array of any shape."""
        if np.issubdtype(values.dtype, np.integer) or values.dtype == bool:
            return
        self.nan += int(np.isnan(values).sum())
        self.infinite += int(np.isinf(values).sum())


class NonFiniteCounts:
    """NaN and infinity in each tensor of a file.

    Tensors whose values do not lie one after the other are read by ``finish``, not on the way.
    """

    def __init__(self, file: TensorFile) -> None:
        self.counts: dict[str, Counts] = {}
        """By name, only of tensors that hold any."""
        self._file = file
        places: dict[tuple[int, int, str], list[str]] = {}
        self._scattered: list[str] = []
        for name, tensor in _with_values(file.tensors).items():
            if tensor.contiguous and tensor.offset % itemsize(tensor.dtype) == 0:
                place = (tensor.offset, tensor.offset + tensor.nbytes, tensor.dtype)
                places.setdefault(place, []).append(name)
            else:
                self._scattered.append(name)
        self._left = sorted(places.items(), key=lambda item: item[0], reverse=True)
        self._open: list[tuple[tuple[int, int, str], list[str]]] = []

    @property
    def values(self) -> int:
        """How many values there are to look at."""
        return sum(tensor.numel for tensor in _with_values(self._file.tensors).values())

    def update(self, offset: int, block: memoryview) -> None:
        """Take the next block; blocks begin at a multiple of every dtype's size."""
        end = offset + len(block)
        while self._left and self._left[-1][0][0] < end:
            self._open.append(self._left.pop())
        for (start, stop, dtype), names in self._open:
            width = itemsize(dtype)
            part = block[max(start - offset, 0) : min(stop, end) - offset]
            part = part[: len(part) - len(part) % width]
            self._scan(np.frombuffer(part, DTYPES[dtype]), dtype, names)
        self._open = [item for item in self._open if item[0][1] > end]

    def finish(self) -> None:
        """Look at the tensors that did not pass by in one piece.

        Raises:
            DamagedFileError: the file has changed since it was opened.
        """
        for name in self._scattered:
            tensor = self._file.tensors[name]
            if not tensor.shape:  # one value, at an odd place
                self._count(self._file.view(tensor), [name])
                continue
            rows = tensor.shape[0]
            step = max(1, rows * _STEP_NBYTES // tensor.nbytes)
            for row in range(0, rows, step):
                part = tensor.narrow(0, row, min(row + step, rows))
                self._count(self._file.view(part), [name])

    def _scan(self, values: Array, dtype: str, names: list[str]) -> None:
        step = _STEP_NBYTES // values.itemsize
        for at in range(0, len(values), step):
            part = values[at : at + step]
            if _may_hold_non_finite(part, dtype):
                self._count(part, names)

    def _count(self, values: Array, names: list[str]) -> None:
        new = Counts()
        new.add(values)
        if new != Counts():
            for name in names:
                counts = self.counts.setdefault(name, Counts())
                counts.nan += new.nan
                counts.infinite += new.infinite


def _with_values(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Return the tensors whose values may be no numbers."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.numel
        and ("float" in tensor.dtype or "complex" in tensor.dtype)
        and not name.endswith(_WITHOUT)
    }


def _may_hold_non_finite(values: Array, dtype: str) -> bool:
    """Tell quickly that all are numbers: in most blocks of most models they are."""
    if dtype not in _EXPONENTS:
        return True
    unsigned, mask = _EXPONENTS[dtype]
    bits = values.view(unsigned)
    return bool((bits & bits.dtype.type(mask)).max() == mask)
