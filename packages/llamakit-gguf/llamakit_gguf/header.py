"""Reads the beginning of a GGUF file: its metadata, and where its tensors are.

gguf's own reader maps the file and makes an object for each of as many values as it claims. Here
every count and length is checked against what 405B needs and against the bytes that are there,
before anything is made of it.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from llamakit.errors import DamagedFileError, UnsupportedModelError
from llamakit.files.regular_file import open_regular
from llamakit.printable import printable

MAGIC = b"GGUF"
MAX_NBYTES = 64 << 20
"""Of all before the tensors: Llama 3's vocabulary and merges have 8 MB."""
MAX_KEYS = 4096
MAX_STRINGS = 1 << 20
"""Of an array: Llama 4 has 440,000 merges."""
MAX_TENSORS = 1 << 16
"""405B has 1,139."""
MAX_NAME_NBYTES = 256
MAX_STRING_NBYTES = 4 << 20
"""Of one string: chat templates have thousands of bytes."""
_BLOCK = 1 << 20
_STRING, _ARRAY = 8, 9
_SCALARS = {
    **{0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?"},
    **{10: "Q", 11: "q", 12: "d"},
}
"""By the number of a type: its letter in ``struct``."""


@dataclass(frozen=True)
class Array:
    """An array of the metadata, as its bytes: it is taken apart when it is needed."""

    kind: int
    """The number of its values' type."""
    count: int
    content: bytes = field(repr=False)

    def strings(self) -> list[bytes]:
        """Return the strings of an array of them; none of another array."""
        if self.kind != _STRING:
            return []
        strings, at = [], 0
        for _ in range(self.count):
            (nbytes,) = struct.unpack_from("<Q", self.content, at)
            strings.append(self.content[at + 8 : at + 8 + nbytes])
            at += 8 + nbytes
        return strings

    def numbers(self) -> tuple[int | float, ...]:
        """Return the numbers of an array of them; none of another array."""
        letter = _SCALARS.get(self.kind)
        return struct.unpack(f"<{self.count}{letter}", self.content) if letter else ()


Value = int | float | bool | str | Array


@dataclass(frozen=True)
class TensorEntry:
    """What the index of a file says of one tensor."""

    name: str
    kind: int
    """The number of its GGML type."""
    shape: tuple[int, ...]
    """As numpy has it: GGUF lists the shortest stride first."""
    offset: int
    """Bytes from where the tensors begin."""


@dataclass(frozen=True)
class Header:
    """The metadata of a GGUF file, and its index."""

    path: Path
    metadata: Mapping[str, Value]
    entries: tuple[TensorEntry, ...]
    end: int
    """Bytes from the start of the file to the end of the index."""
    nbytes: int
    """Of the file."""


def read_header(path: Path) -> Header:
    """Read the metadata and the index of a GGUF file.

    Raises:
        DamagedFileError: it is truncated, or claims what no model needs.
        UnsupportedModelError: it is of a version, or in a byte order, that is not read.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        nbytes = file.seek(0, 2)
        file.seek(0)
        cursor = _Cursor(file, path)
        try:
            _check_version(cursor)
            tensors = cursor.count("Q", MAX_TENSORS, "tensors")
            keys = cursor.count("Q", MAX_KEYS, "keys")
            metadata: dict[str, Value] = {}
            for _ in range(keys):
                name = cursor.name()
                if name in metadata:
                    raise cursor.damage(f"the key {printable(name)} is there twice")
                metadata[name] = _value(cursor, name)
            entries = tuple(_entry(cursor) for _ in range(tensors))
        except struct.error as error:
            raise cursor.damage("it ends before its index does") from error
    return Header(path, metadata, entries, cursor.at, nbytes)


class _Cursor:
    """The beginning of a file, read a block at a time as far as it is needed."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path, self.at = path, 0
        self._file, self._data = file, bytearray()

    def damage(self, fault: str) -> DamagedFileError:
        """Return the error for something that is wrong with the file."""
        return DamagedFileError(
            f"{self.path} is no whole GGUF file: {fault}. Download it again, or copy it again."
        )

    def take(self, nbytes: int) -> bytes:
        """Return the next bytes."""
        start = self.at
        self._skip(nbytes)
        return bytes(memoryview(self._data)[start : self.at])

    def take_strings(self, count: int) -> bytes:
        """Return the bytes of the next strings, each with its length before it."""
        start = self.at
        for _ in range(count):
            self._skip(8)
            self._skip(struct.unpack_from("<Q", self._data, self.at - 8)[0])
        return bytes(memoryview(self._data)[start : self.at])

    def _skip(self, nbytes: int) -> None:
        """Move on; read the file as far as that."""
        self.at += nbytes
        if self.at > MAX_NBYTES:
            raise self.damage(f"its index has over {MAX_NBYTES >> 20} MB")
        while self.at > len(self._data):
            block = self._file.read(_BLOCK)
            if not block:
                raise struct.error
            self._data += block

    def scalar(self, letter: str) -> int | float | bool:
        """Return the next number of a type, by its letter in ``struct``."""
        if letter == "?":
            return self.take(1) != b"\0"
        (value,) = struct.unpack(f"<{letter}", self.take(struct.calcsize(f"<{letter}")))
        number: int | float = value
        return number

    def count(self, letter: str, most: int, what: str) -> int:
        """Return the next number, which counts something."""
        number = int(self.scalar(letter))
        if number > most:
            raise self.damage(f"it claims {number} {what}; expected at most {most}")
        return number

    def text(self, most: int, what: str) -> str:
        """Return the next string."""
        nbytes = self.count("Q", most, f"bytes for {what}")
        try:
            return self.take(nbytes).decode()
        except UnicodeDecodeError as error:
            raise self.damage(f"{what} is not UTF-8") from error

    def name(self) -> str:
        """Return the next name of a key or of a tensor."""
        return self.text(MAX_NAME_NBYTES, "a name")


def _check_version(cursor: _Cursor) -> None:
    if cursor.take(4) != MAGIC:
        raise cursor.damage("it does not begin with GGUF")
    version = int(cursor.scalar("I"))
    if version in (2, 3):
        return
    is_swapped = version and version % (1 << 16) == 0
    found = "in big-endian byte order" if is_swapped else f"of GGUF's version {version}"
    raise UnsupportedModelError(
        f"{cursor.path} is {found}; expected version 2 or 3, little-endian. Convert the model "
        "again with a llama.cpp of today, or take its .safetensors files."
    )


def _value(cursor: _Cursor, name: str) -> Value:
    kind = int(cursor.scalar("I"))
    if kind == _STRING:
        return cursor.text(MAX_STRING_NBYTES, f"the string {printable(name)}")
    if kind == _ARRAY:
        return _array(cursor, name)
    if kind not in _SCALARS:
        raise cursor.damage(f"the key {printable(name)} is of the unknown type {kind}")
    return cursor.scalar(_SCALARS[kind])


def _array(cursor: _Cursor, name: str) -> Array:
    kind, what = int(cursor.scalar("I")), f"values of {printable(name)}"
    if kind == _STRING:
        count = cursor.count("Q", MAX_STRINGS, what)
        return Array(kind, count, cursor.take_strings(count))
    if kind not in _SCALARS:
        nested = "arrays in an array" if kind == _ARRAY else f"the unknown type {kind}"
        raise cursor.damage(f"the key {printable(name)} holds {nested}")
    count = cursor.count("Q", MAX_NBYTES, what)
    return Array(kind, count, cursor.take(count * struct.calcsize(f"<{_SCALARS[kind]}")))


def _entry(cursor: _Cursor) -> TensorEntry:
    name = cursor.name()
    axes = cursor.count("I", 4, "axes of a tensor")
    shape = tuple(int(cursor.scalar("Q")) for _ in range(axes))[::-1]
    kind, offset = int(cursor.scalar("I")), int(cursor.scalar("Q"))
    return TensorEntry(name, kind, shape, offset)
