"""A file of tensors whose index has been read: each tensor is mapped when it is asked for."""

from __future__ import annotations

import copy
import math
import mmap
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from io import BufferedReader
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from weakref import WeakValueDictionary

import numpy as np

from llamakit.checkpoint.dtypes import DTYPES, Array, itemsize
from llamakit.errors import DamagedFileError
from llamakit.files.file_stamp import Stamp, check_stamp
from llamakit.files.regular_file import open_regular
from llamakit.printable import printable
from llamakit.protocols import RawRegion, RowOrder

if TYPE_CHECKING:
    from typing_extensions import Self

_WINDOW = 256 << 20
_MAX_DIMENSIONS = 32
MAX_NAME_LENGTH = 500
"""Characters of a tensor's name: Meta's have up to 40, those of an adapter of PEFT's 100."""


@dataclass(frozen=True)
class StoredTensor:
    """Where the values of one tensor are in a file."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    """For each axis, how many values apart neighbours are."""
    offset: int
    """Bytes from the start of the file to the first value."""

    @property
    def numel(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes its values take, one after the other."""
        return self.numel * itemsize(self.dtype)

    @property
    def contiguous(self) -> bool:
        """Whether the values lie one after the other, row by row, with nothing between."""
        lengths = zip(self.shape, self.stride, row_major(self.shape), strict=True)
        return not self.numel or all(length == 1 or have == want for length, have, want in lengths)

    @property
    def end(self) -> int:
        """Bytes from the start of the file to the end of the last value."""
        return self.offset + extent(self.shape, self.stride) * itemsize(self.dtype)

    def narrow(self, axis: int, start: int, stop: int) -> StoredTensor:
        """Return the tensor that is ``start:stop`` of this one along ``axis``.

        Raises:
            ValueError: there is no such axis or slice.
        """
        if not 0 <= axis < len(self.shape) or not 0 <= start <= stop <= self.shape[axis]:
            raise ValueError(f"no slice {start}:{stop} along axis {axis} of shape {self.shape}")
        skipped = start * self.stride[axis] * itemsize(self.dtype)
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        return replace(self, shape=shape, offset=self.offset + skipped)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the stride of a contiguous tensor, in values."""
    return tuple(accumulate(reversed(shape[1:]), mul, initial=1))[::-1] if shape else ()


def extent(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Return how many values of storage a tensor reaches over, from its first to its last."""
    if 0 in shape:
        return 0
    return 1 + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))


def check_shape(shape: tuple[int, ...]) -> None:
    """Check that numpy can make an array of a shape, whatever its dtype.

    Raises:
        ValueError: it has too many axes, a negative length or too many values.
    """
    values = math.prod(length for length in shape[: _MAX_DIMENSIONS + 1] if length)
    if len(shape) > _MAX_DIMENSIONS or any(length < 0 for length in shape) or values >= 1 << 58:
        raise ValueError("a tensor of an impossible shape")


class TensorFile:
    """A file of tensors. It is opened for each map only, so there is nothing to close.

    Arrays are views of the file, made without a copy, and keep their map alive. They are writable
    (torch warns of others), and what is written stays in this process: treat them as read-only.
    """

    archive = ""
    """What the file calls itself inside, where its format has a name for that."""

    def __init__(self, path: Path, opened: Stamp, tensors: Mapping[str, StoredTensor]) -> None:
        _check_names(path, tensors)
        self.path = path
        self.nbytes = opened.nbytes
        self._opened = opened
        self.tensors = tensors
        self._maps: WeakValueDictionary[tuple[int, int], mmap.mmap] = WeakValueDictionary()
        self._lock = threading.Lock()

    def renamed(self, tensors: Mapping[str, StoredTensor]) -> Self:
        """Return the same file with other names for parts of it."""
        other = copy.copy(self)
        other.tensors = tensors
        return other

    def array(self, name: str) -> Array:
        """Return a whole tensor, as a view of the file.

        Raises:
            KeyError: no such tensor.
            DamagedFileError: the file has changed since it was opened.
        """
        return self.view(self.tensors[name])

    def read(self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None) -> Array:
        """Return ``start:stop`` of a tensor along ``axis``, as a view of the file.

        Raises:
            KeyError: no such tensor.
            ValueError: no such axis or slice.
            DamagedFileError: the file has changed since it was opened.
        """
        tensor = self.tensors[name]
        if start == 0 and stop is None:
            return self.view(tensor)
        if stop is None and 0 <= axis < len(tensor.shape):
            stop = tensor.shape[axis]
        return self.view(tensor.narrow(axis, start, stop or 0))

    def view(self, tensor: StoredTensor) -> Array:
        """Return the values at a place in the file, such as a narrowed tensor.

        Raises:
            DamagedFileError: the file has changed since it was opened, or no array has this shape.
        """
        dtype = DTYPES[tensor.dtype]
        try:
            check_shape(tensor.shape)
        except ValueError as error:
            raise DamagedFileError(f"{self.path} holds {error}; download it again.") from None
        if not tensor.numel:
            return np.empty(tensor.shape, dtype)
        begin, mapped = self._map(tensor.offset, tensor.end)
        strides = tuple(step * dtype.itemsize for step in tensor.stride)
        view: Array = np.ndarray(tensor.shape, dtype, mapped, tensor.offset - begin, strides)
        return view

    def copy(self, tensor: StoredTensor, out: Array) -> None:
        """Put the values at a place in the file into an array of that shape and dtype.

        What is contiguous is read, not mapped, so that no part of the file stays in memory.

        Raises: as ``view``.
        """
        if not (tensor.contiguous and tensor.numel):
            out[...] = self.view(tensor)
            return
        buffer = out if out.flags.c_contiguous else np.empty(tensor.shape, out.dtype)
        with open_file(self.path) as file:
            self.check_unchanged()
            file.seek(tensor.offset)
            nbytes = file.readinto(buffer.reshape(-1).view(np.uint8).data)
        if nbytes != tensor.nbytes:
            raise DamagedFileError(f"{self.path} ends before its values do; copy it again.")
        if buffer is not out:
            out[...] = buffer

    def region(self, tensor: StoredTensor, order: RowOrder = "meta") -> RawRegion:
        """Say where a contiguous tensor is, for those who read the bytes themselves.

        Raises:
            DamagedFileError: the file has changed since it was opened.
        """
        self.check_unchanged()
        return RawRegion(self.path, tensor.offset, tensor.shape, order)

    def check_unchanged(self) -> None:
        """Check that the file is the one whose index was read.

        Raises:
            DamagedFileError: it has changed, or is gone.
        """
        check_stamp(self.path, self._opened)

    def _map(self, start: int, stop: int) -> tuple[int, mmap.mmap]:
        """Map bytes ``start:stop``, and perhaps some around them.

        Every map holds a file descriptor, so small tensors share one; and the kernel counts a
        writable map as memory that may be needed, so no map is of a whole shard.
        """
        begin = start - start % _WINDOW
        end = min(begin + _WINDOW, self.nbytes)
        if stop > end:
            begin, end = start - start % mmap.ALLOCATIONGRANULARITY, stop
        with self._lock:
            mapped = self._maps.get((begin, end))
            if mapped is None:
                mapped = self._open_map(begin, end)
                self._maps[begin, end] = mapped
        return begin, mapped

    def _open_map(self, begin: int, end: int) -> mmap.mmap:
        with open_file(self.path) as file:
            self.check_unchanged()
            return mmap.mmap(file.fileno(), end - begin, access=mmap.ACCESS_COPY, offset=begin)


def _check_names(path: Path, names: Iterable[str]) -> None:
    """Refuse names that no message or table could show.

    Raises:
        DamagedFileError: one is too long or not printable.
    """
    for name in names:
        if len(name) > MAX_NAME_LENGTH or not name.isprintable():
            raise DamagedFileError(
                f"{path} has a tensor whose name has {len(name)} characters, {printable(name)!r}; "
                f"expected printable ones, at most {MAX_NAME_LENGTH}. Download it again."
            )


def open_file(path: Path) -> BufferedReader:
    """Open a file for reading.

    Raises:
        DamagedFileError: it cannot be opened.
    """
    try:
        return open_regular(path)
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror}.") from None


def file_nbytes(file: BinaryIO) -> int:
    """Return the size of an open file, in bytes."""
    return file.seek(0, 2)
