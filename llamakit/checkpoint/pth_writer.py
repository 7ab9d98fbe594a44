"""The bytes of a .pth that torch reads, mapped or not: a stored zip, as torch itself lays it out.

Each member's values begin at a multiple of 64, behind a header that is padded. Its CRC-32 is
known only when the values have been written, so it comes after them in a data descriptor, and again
in the directory at the end; nothing is written twice. torch's own files do the same.

Source: PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3; torch's
``caffe2/serialize/inline_container.cc``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from llamakit.checkpoint.dtypes import TORCH_STORAGES
from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.pickle_operations import global_op, integer_op, text_op, tuple_op
from llamakit.checkpoint.tensor_file import row_major
from llamakit.errors import UnsupportedModelError

ALIGNMENT = 64
_LIMIT = 0xFFFFFFFF
_MANY = 0xFFFF
_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_DESCRIPTOR = struct.Struct("<4s3I")
_DESCRIPTOR64 = struct.Struct("<4sI2Q")
_END64 = struct.Struct("<4sQ2H2I4Q")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")
_VERSION = 20
_VERSION64 = 45
_UTF8 = 0x800
_SUM_FOLLOWS = 8
_DATE = 0x21
"""1 January 1980, the first day of a zip: the same bytes whenever they are written."""
_STORAGE_CLASSES = {dtype: name for name, dtype in TORCH_STORAGES.items()}


@dataclass(frozen=True)
class _Member:
    name: bytes
    nbytes: int
    header: int
    """Bytes from the start of the zip to the member's header."""
    content: bytes | None = None
    """None: the values of a tensor."""

    @property
    def wide(self) -> bool:
        return self.nbytes >= _LIMIT

    @property
    def offset(self) -> int:
        unpadded = self.header + _LOCAL.size + len(self.name) + (20 if self.wide else 0) + 4
        return -(-unpadded // ALIGNMENT) * ALIGNMENT

    @property
    def end(self) -> int:
        return self.offset + self.nbytes + len(_descriptor(self, 0))

    @property
    def flags(self) -> int:
        return _UTF8 | (_SUM_FOLLOWS if self.nbytes else 0)


class PthLayout:
    """A .pth of a flat dict of tensors, each with a storage of its own or another's."""

    needs_crc = True

    def __init__(
        self, archive: str, tensors: Sequence[TensorSpec], *, is_dict: bool = True
    ) -> None:
        """Lay out a file.

        Args:
            archive: what the file calls itself inside; torch takes its name, without ``.pth``.
            tensors: in the order of the dict.
            is_dict: False for the one tensor by itself, without a dict around it.

        Raises:
            UnsupportedModelError: a dtype that torch has no class of storages for.
        """
        self.tensors = tuple(tensors)
        self.stored = tuple(tensor for tensor in tensors if tensor.same_as is None)
        before: list[tuple[str, bytes | int]] = [
            ("data.pkl", _pickle(tensors) if is_dict else _pickle_one(*tensors)),
            (".format_version", b"1"),
            (".storage_alignment", b"%d" % ALIGNMENT),
            ("byteorder", b"little"),
        ]
        values = [(f"data/{key}", tensor.nbytes) for key, tensor in enumerate(self.stored)]
        members = list(_place(archive, [*before, *values, ("version", b"3\n")]))
        self._first = len(before)
        self._members = members
        self._directory_nbytes = sum(len(_entry(member, 0)) for member in members)

    @property
    def nbytes(self) -> int:
        """The size of the whole file."""
        return self._members[-1].end + self._directory_nbytes + len(self._end_records())

    @property
    def head(self) -> bytes:
        """The pickle, and the small members that torch looks for."""
        return b"".join(_whole(member) for member in self._members[: self._first])

    def before(self, index: int) -> bytes:
        """Return the header of a tensor's member, padded."""
        return _header(self._members[self._first + index])

    def after(self, index: int, crc: int) -> bytes:
        """Return the data descriptor of a tensor's member."""
        return _descriptor(self._members[self._first + index], crc)

    def tail(self, crcs: Sequence[int]) -> bytes:
        """Return the last member, the directory of all and what says where it is."""
        remaining_crcs = iter(crcs)
        entries = [
            _entry(
                member,
                next(remaining_crcs) if member.content is None else zlib.crc32(member.content),
            )
            for member in self._members
        ]
        return b"".join([_whole(self._members[-1]), *entries, self._end_records()])

    def _end_records(self) -> bytes:
        count, nbytes = len(self._members), self._directory_nbytes
        start = self._members[-1].end
        # torch always writes the 64-bit records, and they cost 76 bytes.
        wide = _END64.pack(
            b"PK\6\6", _END64.size - 12, _VERSION64, _VERSION64, 0, 0, count, count, nbytes, start
        )
        locator = _END64_LOCATOR.pack(b"PK\6\7", 0, start + nbytes, 1)
        shown = min(count, _MANY)
        end = _END.pack(b"PK\5\6", 0, 0, shown, shown, min(nbytes, _LIMIT), min(start, _LIMIT), 0)
        return wide + locator + end


def _place(archive: str, contents: Iterable[tuple[str, bytes | int]]) -> Iterator[_Member]:
    at = 0
    for name, content in contents:
        known = content if isinstance(content, bytes) else None
        nbytes = content if isinstance(content, int) else len(content)
        member = _Member(f"{archive}/{name}".encode(), nbytes, at, known)
        yield member
        at = member.end


def _whole(member: _Member) -> bytes:
    assert member.content is not None
    descriptor = _descriptor(member, zlib.crc32(member.content))
    return _header(member) + member.content + descriptor


def _header(member: _Member) -> bytes:
    extra = b""
    if member.wide:
        extra = struct.pack("<2H2Q", 1, 16, member.nbytes, member.nbytes)
    padding = member.offset - member.header - _LOCAL.size - len(member.name) - len(extra) - 4
    extra += struct.pack("<2s1H", b"FB", padding) + b"Z" * padding
    sizes = (_LIMIT, _LIMIT) if member.wide else (0, 0)
    version = _VERSION64 if member.wide else _VERSION
    fixed = (b"PK\3\4", version, member.flags, 0, 0, _DATE, 0, *sizes, len(member.name), len(extra))
    return _LOCAL.pack(*fixed) + member.name + extra


def _descriptor(member: _Member, crc: int) -> bytes:
    if not member.nbytes:
        return b""  # as torch, which works out where values are from the sizes alone
    record = _DESCRIPTOR64 if member.wide else _DESCRIPTOR
    return record.pack(b"PK\7\x08", crc, member.nbytes, member.nbytes)


def _entry(member: _Member, crc: int) -> bytes:
    numbers = [member.nbytes, member.nbytes, member.header]
    large = [number for number in numbers if number >= _LIMIT]
    extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
    nbytes, packed, header = (min(number, _LIMIT) for number in numbers)
    version = _VERSION64 if large else _VERSION
    fixed = (b"PK\1\2", version, version, member.flags, 0, 0, _DATE, crc, packed, nbytes)
    lengths = (len(member.name), len(extra), 0, 0, 0, 0, header)
    return _ENTRY.pack(*fixed, *lengths) + member.name + extra


def _pickle(tensors: Sequence[TensorSpec]) -> bytes:
    """Write the pickle of a dict of tensors, in protocol 2: torch's own, and what it allows."""
    keys = {tensor.name: key for key, tensor in enumerate(_stored(tensors))}
    parts = [b"\x80\x02}("]
    for tensor in tensors:
        key = keys[tensor.same_as or tensor.name]
        parts += (text_op(tensor.name), _tensor(tensor, key))
    return b"".join([*parts, b"u."])


def _pickle_one(tensor: TensorSpec) -> bytes:
    return b"\x80\x02" + _tensor(tensor, 0) + b"."


def _stored(tensors: Iterable[TensorSpec]) -> Iterator[TensorSpec]:
    return (tensor for tensor in tensors if tensor.same_as is None)


def _tensor(tensor: TensorSpec, key: int) -> bytes:
    storage_class = _STORAGE_CLASSES.get(tensor.dtype)
    if storage_class is None:
        known = ", ".join(sorted(_STORAGE_CLASSES))
        raise UnsupportedModelError(
            f"{tensor.name} is of dtype {tensor.dtype}, which is not written to a .pth; "
            f"written are {known}. Choose one of these with --dtype."
        )
    numel = 1
    for length in tensor.shape:
        numel *= length
    described = [
        text_op("storage"),
        global_op(f"torch.{storage_class}"),
        *(text_op(str(key)), text_op("cpu"), integer_op(numel)),
    ]
    storage = tuple_op(described) + b"Q"
    shape, stride = (
        tuple_op(map(integer_op, numbers)) for numbers in (tensor.shape, row_major(tensor.shape))
    )
    no_hooks = global_op("collections.OrderedDict") + b")R"
    arguments = [storage, integer_op(0), shape, stride, b"\x89", no_hooks]
    return global_op("torch._utils._rebuild_tensor_v2") + tuple_op(arguments) + b"R"
