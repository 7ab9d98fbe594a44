"""Where the members of a stored zip are, so that they can be mapped instead of unpacked.

Only what torch writes is read: one disk, nothing compressed, sizes up to 2**63 (zip64).

Source: PKWARE's APPNOTE.TXT, sections 4.3 (records) and 4.5.3 (zip64).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from llamakit.checkpoint.tensor_file import file_nbytes
from llamakit.printable import printable

_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
LOCAL_NBYTES = _LOCAL.size
"""Of the header before a member, without its name and what pads it."""
_MAX_COMMENT = 0xFFFF
_MAX_DIRECTORY = 4 << 20
"""A shard of 405B has 1,140 members, which take 0.15 MB; this is enough for 30,000."""


class CutShortError(ValueError):
    """The end of the zip, where its directory is, is missing."""


@dataclass(frozen=True)
class Member:
    """One file within the zip."""

    name: str
    offset: int
    """Bytes from the start of the zip to the member's first byte."""
    nbytes: int
    crc: int = 0
    """The CRC-32 of its bytes, as the directory says."""


@dataclass(frozen=True)
class Entry:
    """What the directory says of a member."""

    name: bytes
    nbytes: int
    header: int
    """Bytes from the start of the zip to the header before the member."""
    crc: int


def index_zip(file: BinaryIO) -> dict[str, Member]:
    """Find the members of a zip, from its directory and the header before each.

    Raises:
        CutShortError: it has no directory: its end is missing.
        ValueError: it is damaged, or something in it is compressed or encrypted.
    """
    start, _ = directory_range(file)
    entries = read_directory(file)
    members: dict[str, Member] = {}
    free_from = 0
    for entry in entries:
        if entry.header < free_from:
            raise ValueError("two members overlap")
        member = _locate(file, entry)
        free_from = member.offset + member.nbytes
        if free_from > start:
            name = printable(member.name)
            raise ValueError(f"{name} reaches byte {free_from}, past the last at {start}")
        if member.name in members:
            raise ValueError(f"two members are called {printable(member.name)}")
        members[member.name] = member
    return members


def first_member(file: BinaryIO) -> Member:
    """Find the first member from its header alone, for a zip without a directory.

    Its size may not be in the header, and is 0 then.

    Raises:
        ValueError: there is no complete header at the start.
    """
    file.seek(0)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or header[:4] != b"PK\3\4":
        raise ValueError("its first header is damaged")
    nbytes, name_length, extra_length = _LOCAL.unpack(header)[8:]
    name = file.read(name_length).decode()
    return Member(name, _LOCAL.size + name_length + extra_length, nbytes)


def header_of(entry: Entry, offset: int) -> bytes:
    """Return a header of a member after which its first byte is at ``offset`` of the zip.

    It ends with the name; what is between it and the member has no meaning.
    """
    extra = offset - entry.header - _LOCAL.size - len(entry.name)
    lengths = (len(entry.name), extra)
    return _LOCAL.pack(b"PK\3\4", *(0,) * 5, *(0,) * 3, *lengths) + entry.name


def read_directory(file: BinaryIO) -> list[Entry]:
    """Return what the directory of a zip says of its members, in the order of their places.

    Raises:
        CutShortError, ValueError: as ``index_zip``.
    """
    start, nbytes = directory_range(file)
    return sorted(_entries(_read_at(file, start, nbytes)), key=lambda entry: entry.header)


def directory_range(file: BinaryIO) -> tuple[int, int]:
    """Return where the directory of a zip begins and how long it is, from the end of the zip.

    Raises:
        CutShortError, ValueError: as ``index_zip``.
    """
    total = file_nbytes(file)
    tail_start = max(0, total - _END.size - _MAX_COMMENT)
    tail = _read_at(file, tail_start, total - tail_start)
    at = tail.rfind(b"PK\5\6", 0, max(0, len(tail) - _END.size + 4))
    if at < 0:
        raise CutShortError("the end of the file is missing")
    nbytes, start = _END.unpack_from(tail, at)[5:7]
    end = tail_start + at
    if locator := _locator64(file, end):
        nbytes, start, end = locator
    if start + nbytes > end:
        raise ValueError("its directory is not where the file says")
    if nbytes > _MAX_DIRECTORY:
        raise ValueError(f"its directory of {nbytes} bytes is larger than any checkpoint needs")
    return start, nbytes


def _locator64(file: BinaryIO, end: int) -> tuple[int, int, int] | None:
    """Follow the zip64 records before the end record, if there are any.

    Returns:
        Size and start of the directory, and where its end record begins; all in bytes.
    """
    if end < _END64_LOCATOR.size:
        return None
    locator = _read_at(file, end - _END64_LOCATOR.size, _END64_LOCATOR.size)
    signature, _, at, _ = _END64_LOCATOR.unpack(locator)
    if signature != b"PK\6\7":
        return None
    if at + _END64.size > end:
        raise ValueError("its zip64 record is not where the file says")
    record = _END64.unpack(_read_at(file, at, _END64.size))
    if record[0] != b"PK\6\6":
        raise ValueError("its zip64 record is damaged")
    return record[8], record[9], at


def _entries(directory: bytes) -> Iterator[Entry]:
    at = 0
    while at < len(directory):
        if len(directory) - at < _ENTRY.size or directory[at : at + 4] != b"PK\1\2":
            raise ValueError("its directory is damaged")
        fields = _ENTRY.unpack_from(directory, at)
        name_length, extra_length, comment_length = fields[10:13]
        name_end = at + _ENTRY.size + name_length
        name = directory[at + _ENTRY.size : name_end]
        shown = printable(name.decode("utf-8", "replace"))
        if fields[3] & 1 or fields[4] != 0:
            raise ValueError(f"{shown} is compressed or encrypted")
        extra = directory[name_end : name_end + extra_length]
        packed, nbytes, header = _widen((fields[8], fields[9], fields[16]), extra)
        if packed != nbytes:
            raise ValueError(f"{shown} has two sizes")
        yield Entry(name, nbytes, header, fields[7])
        at = name_end + extra_length + comment_length


def _widen(fields: tuple[int, int, int], extra: bytes) -> tuple[int, int, int]:
    """Take from the zip64 extra what did not fit in 32 bits: size, packed size, header."""
    packed, nbytes, header = fields
    wide = _extra64(extra)
    values = []
    for value in (nbytes, packed, header):
        if value != 0xFFFFFFFF:
            values.append(value)
            continue
        if len(wide) < 8:
            raise ValueError("a zip64 size is missing")
        values.append(int.from_bytes(wide[:8], "little"))
        wide = wide[8:]
    nbytes, packed, header = values
    return packed, nbytes, header


def _extra64(extra: bytes) -> bytes:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            return extra[at + 4 : at + 4 + length]
        at += 4 + length
    return b""


def _locate(file: BinaryIO, entry: Entry) -> Member:
    """Find a member's first byte: names and extras before it may differ from the directory's."""
    header = _read_at(file, entry.header, _LOCAL.size)
    if header[:4] != b"PK\3\4":
        raise ValueError("a member's header is damaged")
    name_length, extra_length = _LOCAL.unpack(header)[9:]
    if _read_at(file, entry.header + _LOCAL.size, name_length) != entry.name:
        raise ValueError("a member's header and the directory differ in its name")
    offset = entry.header + _LOCAL.size + name_length + extra_length
    return Member(entry.name.decode(), offset, entry.nbytes, entry.crc)


def _read_at(file: BinaryIO, offset: int, nbytes: int) -> bytes:
    if offset >= 1 << 62:
        raise ValueError("an offset is out of range")
    file.seek(offset)
    data = file.read(nbytes)
    if len(data) < nbytes:
        raise ValueError(f"{nbytes} bytes at {offset} are out of range")
    return data
