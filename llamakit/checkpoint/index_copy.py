"""Copies the index of a file of tensors to where the file can be opened without its values.

The copy is a sparse file of the same size: its name, its length and what is read of it when it is
opened are those of the file. Whoever fetches from a server has so the place of every value after
a few requests.

A .pth has a header before each member, of which there are thousands. They are not fetched: torch
pads them so that the values begin at a multiple of 64, and where the next begins must agree. The
real ones come with the values; compare then.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

from llamakit.checkpoint.pickle_reader import MAX_NBYTES
from llamakit.checkpoint.pth_writer import ALIGNMENT
from llamakit.checkpoint.safetensors_reader import MAX_HEADER_NBYTES
from llamakit.checkpoint.zip_index import (
    LOCAL_NBYTES,
    Entry,
    directory_range,
    header_of,
    index_zip,
    read_directory,
)
from llamakit.errors import UnsupportedModelError
from llamakit.files.regular_file import open_own

END_NBYTES = 256 << 10
"""Of the file's beginning and of its end: with 405B's, both hold what they should."""
MAX_HEADERS = 64
"""How many headers are fetched of a zip that torch would have written otherwise."""
_DESCRIPTORS = (0, 16, 24)
"""How long what follows a member may be, in bytes."""

Ranges = Generator[tuple[int, int], bytes, None]
"""Yields ranges of the file, and takes the bytes of each."""


def copy_index(path: Path, nbytes: int) -> Ranges:
    """Make a sparse file with the index of another one; opening it shows whether that is damaged.

    Args:
        path: where; what is there is replaced.
        nbytes: how large the file is.

    Raises:
        UnsupportedModelError: its index would take too many requests.
    """
    path.unlink(missing_ok=True)
    descriptor = open_own(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    with os.fdopen(descriptor, "r+b") as file:
        file.truncate(nbytes)
        copy = _Copy(file)
        ends = 2 * END_NBYTES
        yield from copy.fetch(0, nbytes if nbytes <= ends else END_NBYTES)
        if path.suffix == ".safetensors":
            file.seek(0)
            length = min(int.from_bytes(file.read(8), "little"), MAX_HEADER_NBYTES)
            yield from copy.fetch(0, min(8 + length, nbytes))
            return
        yield from copy.fetch(max(0, nbytes - END_NBYTES), nbytes)
        yield from _copy_zip(copy, path)


class _Copy:
    """The sparse file, and which of its bytes are there."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self._there: list[tuple[int, int]] = []

    def has(self, start: int, stop: int) -> bool:
        """Tell whether a range is there, from one request."""
        return any(first <= start and stop <= last for first, last in self._there)

    def fetch(self, start: int, stop: int) -> Ranges:
        """Fetch what is not there of a range."""
        for first, last in self._there:
            if first <= start < last:
                start = last
            if first < stop <= last:
                stop = first
        if start < stop:
            self.put((yield start, stop), start)
            self._there.append((start, stop))

    def put(self, data: bytes, offset: int) -> None:
        """Write bytes at their place."""
        self.file.seek(offset)
        self.file.write(data)
        self.file.flush()


def _copy_zip(copy: _Copy, path: Path) -> Ranges:
    try:
        start, nbytes = directory_range(copy.file)
        yield from copy.fetch(start, start + nbytes)
        entries = read_directory(copy.file)
    except ValueError:
        return  # opening the copy says what is wrong
    yield from _copy_headers(copy, entries, start, path)
    try:
        members = index_zip(copy.file)
    except ValueError:
        return
    for member in members.values():
        if member.name.endswith(("/data.pkl", "/byteorder")) and member.nbytes <= MAX_NBYTES:
            yield from copy.fetch(member.offset, member.offset + member.nbytes)


def _copy_headers(copy: _Copy, entries: list[Entry], end: int, path: Path) -> Ranges:
    """Write the headers of all members, as they have to be, or else as they are."""
    nfetched = 0
    for entry, following in zip(entries, [*(it.header for it in entries[1:]), end], strict=True):
        stop = entry.header + LOCAL_NBYTES + len(entry.name)
        if stop > end:
            return  # opening the copy says what is wrong
        if copy.has(entry.header, stop):
            continue
        offset = _aligned(entry)
        if following - offset - entry.nbytes in _DESCRIPTORS:
            copy.put(header_of(entry, offset), entry.header)
            continue
        nfetched += 1
        if nfetched > MAX_HEADERS:
            raise UnsupportedModelError(
                f"{path.name} is not laid out as torch lays out its files, so that finding its "
                f"values takes more than {MAX_HEADERS} requests. Download it, and convert it then."
            )
        yield from copy.fetch(entry.header, stop)


def _aligned(entry: Entry) -> int:
    """Return where torch has a member begin, in bytes from the start of the zip.

    Source: torch's ``caffe2/serialize/inline_container.cc``, ``getPadding``.
    """
    wide = 20 if entry.nbytes >= 0xFFFFFFFF else 0
    unpadded = entry.header + LOCAL_NBYTES + len(entry.name) + wide + 4
    return -(-unpadded // ALIGNMENT) * ALIGNMENT
