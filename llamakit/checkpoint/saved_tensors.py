"""A file of single tensors, one after the other, each as torch.save or safetensors wrote it.

Torch's distributed checkpoints consist of such files. Nothing in them says where a tensor begins:
whoever reads one knows it from an index elsewhere.

Source: ``_write_item`` and ``_write_files_from_queue`` in torch's
``torch/distributed/checkpoint/filesystem.py``.
"""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from llamakit.checkpoint.dtypes import SAFETENSORS
from llamakit.checkpoint.pickle_machine import Machine
from llamakit.checkpoint.pth_reader import locate_in_zip
from llamakit.checkpoint.safetensors_reader import MAX_HEADER_NBYTES
from llamakit.checkpoint.tensor_file import StoredTensor, TensorFile, open_file, row_major
from llamakit.checkpoint.torch_globals import TensorRecord
from llamakit.errors import DamagedFileError, InvalidJSONError
from llamakit.files.file_stamp import stamp
from llamakit.files.json_reader import parse_json
from llamakit.printable import printable

_ZIP = b"PK\3\4"


class SavedTensors(TensorFile):
    """A file whose tensors are found by their places, each when it is asked for."""

    _known: dict[int, Any]
    """By place: a tensor that torch.save wrote, or the header of safetensors for many. Many chunks
    may have one place, and each would have it read again."""

    @classmethod
    def open(cls, path: Path) -> SavedTensors:
        """Note what the file is now; nothing is read.

        Raises:
            DamagedFileError: it cannot be opened.
        """
        with open_file(path) as file:
            opened = cls(path, stamp(os.fstat(file.fileno())), {})
        opened._known = {}
        return opened

    def locate(self, name: str, offset: int, nbytes: int) -> StoredTensor:
        """Find the values of one tensor.

        Args:
            name: what the tensor is called, for messages, and where safetensors wrote it.
            offset: where it begins, in bytes from the start of the file.
            nbytes: how long what torch.save wrote is; safetensors says it itself.

        Raises:
            DamagedFileError: there is no such tensor there, or the file has changed.
            UnsafePickleError: its pickle asks for something that no tensor needs.
            UnsupportedModelError: it is of a kind that is not read here.
        """
        with open_file(self.path) as file:
            self.check_unchanged()
            if offset < 0 or nbytes < 0 or offset + nbytes > self.nbytes:
                raise DamagedFileError(
                    f"{self.path} has {self.nbytes} bytes; {printable(name, 100)} is said to be "
                    f"{nbytes} bytes at {offset}. Copy the file again."
                )
            try:
                if offset not in self._known:
                    self._known[offset] = _read_index(file, self.path, offset, nbytes, self.nbytes)
                known = self._known[offset]
                if isinstance(known, StoredTensor):
                    return known
                return _in_safetensors(known, name, self.nbytes)
            except (ValueError, InvalidJSONError) as error:
                raise DamagedFileError(
                    f"{self.path} is damaged where {printable(name, 100)} is said to be, at byte "
                    f"{offset}: {error}. Copy the file again."
                ) from None


class _Part(io.RawIOBase):
    """A part of an open file, as a file."""

    def __init__(self, file: BinaryIO, offset: int, nbytes: int) -> None:
        self._file = file
        self._offset = offset
        self._nbytes = nbytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._nbytes)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset + self._at)
        wanted = memoryview(buffer)[: max(0, self._nbytes - self._at)]
        wanted[:] = data = self._file.read(len(wanted))
        self._at += len(data)
        return len(data)


def _in_zip(file: BinaryIO, path: Path, offset: int, nbytes: int) -> StoredTensor:
    def read(pickle: bytes) -> TensorRecord:
        tensor = Machine(str(path)).run(pickle)
        if not isinstance(tensor, TensorRecord):
            raise ValueError("what is saved there is no tensor")
        return tensor

    part = io.BufferedReader(_Part(file, offset, nbytes))
    found = locate_in_zip(part, path, read)
    return replace(found, offset=offset + found.offset)


def _read_index(
    file: BinaryIO, path: Path, offset: int, nbytes: int, end: int
) -> StoredTensor | tuple[int, Any]:
    """Return the tensor of a zip, or where the values of safetensors begin, and its header."""
    file.seek(offset)
    if file.read(len(_ZIP)) == _ZIP:
        return _in_zip(file, path, offset, nbytes)
    file.seek(offset)
    length = int.from_bytes(file.read(8), "little")
    if length > min(MAX_HEADER_NBYTES, end - offset - 8):
        raise ValueError("neither torch.save nor safetensors wrote it")
    return offset + 8 + length, parse_json(file.read(length), "its header")


def _in_safetensors(index: tuple[int, Any], name: str, end: int) -> StoredTensor:
    values, header = index
    match header.get(name) if isinstance(header, dict) else None:
        case {"dtype": str(code), "shape": [*shape], "data_offsets": [int(begin), int(stop)]}:
            lengths = tuple(shape)
        case _:
            raise ValueError("its header does not describe the tensor")
    if code not in SAFETENSORS or not all(type(it) is int and it >= 0 for it in lengths):
        raise ValueError("its header describes the tensor in an unknown way")
    stored = StoredTensor(SAFETENSORS[code], lengths, row_major(lengths), values + begin)
    if begin < 0 or stop - begin != stored.nbytes or values + stop > end:
        raise ValueError("its header describes more values than are there")
    return stored
