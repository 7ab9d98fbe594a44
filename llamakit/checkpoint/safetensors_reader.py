"""A .safetensors: eight bytes of length, a JSON header, then the values of all tensors.

Source: the format's description, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from llamakit.checkpoint.dtypes import SAFETENSORS
from llamakit.checkpoint.not_weights import HEAD_NBYTES, describe_impostor
from llamakit.checkpoint.tensor_file import (
    StoredTensor,
    TensorFile,
    check_shape,
    file_nbytes,
    open_file,
    row_major,
)
from llamakit.errors import DamagedFileError

MAX_HEADER_NBYTES = 100_000_000
"""The format's own limit."""


class SafetensorsFile(TensorFile):
    """The tensors of a .safetensors, each where it lies in the file."""

    def __init__(
        self,
        path: Path,
        nbytes: int,
        tensors: Mapping[str, StoredTensor],
        metadata: Mapping[str, str],
    ) -> None:
        super().__init__(path, nbytes, tensors)
        self.metadata = metadata
        """What the header says beside the tensors, such as ``{"format": "pt"}``."""

    @classmethod
    def open(cls, path: Path) -> SafetensorsFile:
        """Read the header of a .safetensors; no values are read.

        Raises:
            DamagedFileError: it cannot be read, or is cut short, damaged, or something else.
        """
        with open_file(path) as file:
            nbytes = file_nbytes(file)
            try:
                header, data_start = _read_header(file, nbytes)
                metadata = _metadata(header.pop("__metadata__", {}))
                tensors = {name: _tensor(name, entry, data_start) for name, entry in header.items()}
                needed = _check_cover(tensors, data_start)
            except ValueError as error:
                raise DamagedFileError(
                    f"{path} is not a whole .safetensors: {error}. Download it again."
                ) from None
        if nbytes != needed:
            raise DamagedFileError(
                f"{path} has {nbytes} bytes and its header describes {needed}; "
                "finish the download, or start it again."
            )
        return cls(path, nbytes, tensors, metadata)


def _read_header(file: BinaryIO, nbytes: int) -> tuple[dict[str, Any], int]:
    file.seek(0)
    head = file.read(HEAD_NBYTES)
    if impostor := describe_impostor(head):
        raise ValueError(f"it is {impostor}")
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or length > min(nbytes - 8, MAX_HEADER_NBYTES):
        raise ValueError(f"a header of {length} bytes does not fit in {nbytes} bytes")
    file.seek(8)
    try:
        header = json.loads(file.read(length).decode(), object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError("its header is nested too deep") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    return header, 8 + length


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("its header has a key twice")
    return values


def _metadata(metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict):
        raise ValueError("its metadata is not an object")
    return {key: str(value) for key, value in metadata.items()}


def _tensor(name: str, entry: object, data_start: int) -> StoredTensor:
    match entry:
        case {"dtype": str(code), "shape": [*lengths], "data_offsets": [begin, end]}:
            shape = tuple(lengths)
        case _:
            raise ValueError(f"its header does not describe {name[:200]}")
    if not all(type(value) is int and value >= 0 for value in (*shape, begin, end)):
        raise ValueError(f"a length or offset of {name[:200]} is no count")
    if code not in SAFETENSORS:
        raise ValueError(f"{name[:200]} is of dtype {code[:20]}, which is not known here")
    check_shape(shape)
    tensor = StoredTensor(SAFETENSORS[code], shape, row_major(shape), data_start + begin)
    if begin + tensor.nbytes != end:
        raise ValueError(f"{name[:200]} has {end - begin} bytes, its shape needs {tensor.nbytes}")
    return tensor


def _check_cover(tensors: Mapping[str, StoredTensor], data_start: int) -> int:
    """Check that the tensors follow one another without overlap or gap; return where they end."""
    at = data_start
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != at:
            raise ValueError(f"tensors overlap or leave a gap at byte {at}")
        at += tensor.nbytes
    return at
