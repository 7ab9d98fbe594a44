"""A .pth: a stored zip with the pickle of a dict of tensors and one member for each storage.

The pickle is read by ``pickle_reader`` and runs nothing; the storages are mapped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llamakit.checkpoint.dtypes import itemsize
from llamakit.checkpoint.not_weights import (
    HEAD_NBYTES,
    describe_not_weights,
    describe_other_format,
    remedy,
)
from llamakit.checkpoint.pickle_reader import MAX_NBYTES, check_nbytes, read_pickle
from llamakit.checkpoint.pickle_survey import survey
from llamakit.checkpoint.tensor_file import StoredTensor, TensorFile, file_nbytes, open_file
from llamakit.checkpoint.torch_globals import TensorRecord
from llamakit.checkpoint.zip_index import CutShortError, Member, first_member, index_zip
from llamakit.errors import CheckpointError, DamagedFileError, UnsupportedModelError
from llamakit.files.file_stamp import Stamp, stamp
from llamakit.printable import printable

_INDEX = "data.pkl"
MAX_SHARING = 2
"""How often the bytes of a file may count: an embedding is saved twice where it is tied."""
MAX_BITS = 64
"""Of an integer in a pickle; Python refuses to print one of thousands."""
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""What torch before 1.6 begins its files with, after the protocol: a pickled number."""


@dataclass(frozen=True)
class _Archive:
    path: Path
    name: str
    members: Mapping[str, Member]

    def member(self, name: str) -> Member | None:
        return self.members.get(f"{self.name}/{name}")


class PthFile(TensorFile):
    """The tensors of a .pth, each with its place in the file."""

    def __init__(
        self, path: Path, opened: Stamp, tensors: Mapping[str, StoredTensor], archive: str
    ) -> None:
        super().__init__(path, opened, tensors)
        self.archive = archive
        """What the file calls itself inside: its name when torch wrote it, or ``archive``."""

    @classmethod
    def open(cls, path: Path, key: str | None = None) -> PthFile:
        """Read the index of a .pth; no values are read.

        Args:
            key: of the dict of tensors, in a training checkpoint.

        Raises:
            DamagedFileError: it cannot be read, or is truncated, damaged, or something else.
            UnsafePickleError: its pickle asks for something that no tensor needs.
            ParametersError: it does not hold a flat dict of tensors.
            UnsupportedModelError: it holds tensors of a kind that is not read here.
        """
        with open_file(path) as file:
            opened = stamp(os.fstat(file.fileno()))
            archive = _open_archive(file, path)
            _check_byte_order(file, archive)
            records = read_pickle(_read_index(file, archive), str(path), key)
            tensors = {name: _locate(name, record, archive) for name, record in records.items()}
        _check_sharing(path, tensors, opened.nbytes)
        return cls(path, opened, tensors, archive.name)


def locate_in_zip(
    file: BinaryIO, path: Path, read: Callable[[bytes], TensorRecord]
) -> StoredTensor:
    """Find the one tensor that torch.save has written by itself.

    Args:
        file: the zip; it may be a part of a larger file.
        path: of the file, for messages.
        read: reads the pickle.
    Returns:
        The tensor, its offset counted from the start of ``file``.

    Raises: as ``PthFile.open``, and what ``read`` raises.
    """
    archive = _open_archive(file, path)
    _check_byte_order(file, archive)
    return _locate("the tensor", read(_read_index(file, archive)), archive)


def plain_values(path: Path) -> Iterator[dict[str, object]]:
    """Yield the dicts that a training checkpoint holds next to its weights; nothing is run."""
    if path.suffix == ".safetensors":
        return
    with open_file(path) as file:
        found = survey(_read_index(file, _open_archive(file, path)), str(path))
    values = found.value.values() if found and isinstance(found.value, dict) else ()
    for value in values:
        if isinstance(value, dict):
            yield {key: it for key, it in value.items() if _is_plain(it)}


def _is_plain(value: object) -> bool:
    """Tell whether a value is text or a number, of a length that a message can repeat."""
    if isinstance(value, int):
        return value.bit_length() <= MAX_BITS
    return isinstance(value, str | float | None)


def _check_sharing(path: Path, tensors: Mapping[str, StoredTensor], nbytes: int) -> None:
    """Refuse many tensors over one storage: each of them would be read in full."""
    found = sum(tensor.nbytes for tensor in tensors.values())
    if found > MAX_SHARING * nbytes:
        raise DamagedFileError(
            f"{path} describes {found} bytes of values in {nbytes} bytes; expected at most "
            f"{MAX_SHARING} tensors over one storage. Save the tensors each with its own."
        )


def _open_archive(file: BinaryIO, path: Path) -> _Archive:
    _check_is_zip(file, path)
    try:
        members = index_zip(file)
    except CutShortError:
        raise _cut_short(file, path) from None
    except ValueError as error:
        raise DamagedFileError(
            f"{path} is damaged: {error}. Download it again; if it is another program's zip, "
            "save it with torch.save."
        ) from None
    names = [name[: -len(_INDEX) - 1] for name in members if name.endswith(f"/{_INDEX}")]
    if len(names) != 1 or "/" in names[0]:
        raise DamagedFileError(
            f"{path} is a zip, but not one of torch's: it has {len(names)} members NAME/{_INDEX}; "
            "expected one. Check where the file is from."
        )
    return _Archive(path, names[0], members)


def _check_is_zip(file: BinaryIO, path: Path) -> None:
    head = file.read(HEAD_NBYTES)
    if head[:4] == b"PK\3\4":
        return
    if not head:
        raise DamagedFileError(f"{path} is empty; download it again.")
    if problem := describe_not_weights(head):
        raise DamagedFileError(
            f"{path} is {problem}; expected a torch checkpoint. {remedy(problem)}"
        )
    if head.startswith(_LEGACY_MAGIC, 2):
        raise DamagedFileError(
            f"{path} is in torch's old format, from before 1.6, which cannot be read in parts. "
            "Convert it once, in Python with torch: "
            "torch.save(torch.load(path, weights_only=True), path)."
        )
    if problem := describe_other_format(head):
        raise DamagedFileError(f"{path} is not a torch checkpoint: it is {problem}.")
    raise DamagedFileError(
        f"{path} is not a torch checkpoint: it begins with {head[:8]!r}; expected a zip as "
        "torch.save writes it. Check where the file is from, or download it again."
    )


def _cut_short(file: BinaryIO, path: Path) -> DamagedFileError:
    needed = _needed_nbytes(file)
    than = f"at least {needed}" if needed else "more"
    return DamagedFileError(
        f"{path} is truncated: it has {file_nbytes(file)} bytes and needs {than}; "
        "finish the download, or start it again."
    )


def _needed_nbytes(file: BinaryIO) -> int | None:
    """Work out a file's least size from its pickle, which torch writes before the storages."""
    try:
        index = first_member(file)
        file.seek(index.offset)
        data = file.read(MAX_NBYTES)
        records = read_pickle(data, "") if index.name.endswith(f"/{_INDEX}") else {}
    except (ValueError, CheckpointError, UnsupportedModelError):
        return None
    storages = {
        record.storage_key: record.storage_numel * itemsize(record.dtype)
        for record in records.values()
    }
    return index.offset + index.nbytes + sum(storages.values()) if storages else None


def _check_byte_order(file: BinaryIO, archive: _Archive) -> None:
    member = archive.member("byteorder")
    if member is None:
        return
    file.seek(member.offset)
    order = file.read(min(member.nbytes, 16))
    if order != b"little":
        raise DamagedFileError(
            f"{archive.path}: its byte order is {order.decode('ascii', 'replace')!r}; expected "
            "'little'. Save it again on a little-endian machine."
        )


def _read_index(file: BinaryIO, archive: _Archive) -> bytes:
    member = archive.members[f"{archive.name}/{_INDEX}"]
    check_nbytes(member.nbytes, str(archive.path))
    file.seek(member.offset)
    return file.read(member.nbytes)


def _locate(name: str, record: TensorRecord, archive: _Archive) -> StoredTensor:
    member = archive.member(f"data/{record.storage_key}")
    width = itemsize(record.dtype)
    needed = record.storage_numel * width
    if member is None or member.nbytes < needed:
        found = "absent" if member is None else f"{member.nbytes} bytes"
        raise DamagedFileError(
            f"{archive.path}: the storage of {printable(name)} is {found}; expected {needed}. "
            "Download the file again."
        )
    offset = member.offset + record.offset * width
    return StoredTensor(record.dtype, record.shape, record.stride, offset)
