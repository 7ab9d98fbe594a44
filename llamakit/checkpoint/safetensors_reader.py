"""A .safetensors: eight bytes of length, a JSON header, then the values of all tensors.

The ``safetensors`` package judges the header. What it says of shapes is enough to find the
values: in a valid file they follow one another without a gap.

Source: the format's description, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from llamakit.checkpoint.dtypes import SAFETENSORS
from llamakit.checkpoint.not_weights import (
    HEAD_NBYTES,
    describe_not_weights,
    describe_other_format,
    remedy,
)
from llamakit.checkpoint.tensor_file import (
    StoredTensor,
    TensorFile,
    open_file,
    row_major,
)
from llamakit.errors import DamagedFileError, UnsupportedModelError
from llamakit.files.file_stamp import Stamp, stamp
from llamakit.files.json_reader import parse_json
from llamakit.printable import printable

MAX_HEADER_NBYTES = 8 << 20
"""A file of 405B describes 1,137 tensors in 0.1 MB. The format's own limit of 100 MB would take
2.6 GB of memory."""
_END = re.compile(rb'"data_offsets": *\[ *[0-9]+ *, *([0-9]{1,20}) *\]')


class SafetensorsFile(TensorFile):
    """The tensors of a .safetensors, each where it is in the file."""

    @classmethod
    def open(cls, path: Path) -> SafetensorsFile:
        """Read the header of a .safetensors; no values are read.

        Raises:
            DamagedFileError: it cannot be read, or is truncated, damaged, or something else; or
                a name occurs twice.
            UnsupportedModelError: a dtype is none of ours.
        """
        try:
            header, opened = _read_header(path)
            tensors = _tensors(path, header, opened.nbytes)
            parse_json(header, "its header")  # the package takes the last of two equal names
        except ValueError as error:
            raise DamagedFileError(
                f"{path} is not a complete .safetensors: {error}. Download it again."
            ) from None
        return cls(path, opened, tensors)


def _read_header(path: Path) -> tuple[bytes, Stamp]:
    """Return the header, within the limit, and what the file was then."""
    with open_file(path) as file:
        opened = stamp(os.fstat(file.fileno()))
        head = file.read(HEAD_NBYTES)
        if problem := describe_not_weights(head):
            raise DamagedFileError(
                f"{path} is {problem}; expected a .safetensors. {remedy(problem)}"
            )
        if head[8:9] != b"{" and (problem := describe_other_format(head)):
            raise DamagedFileError(f"{path} is no .safetensors: it is {problem}.")
        length = int.from_bytes(head[:8], "little")
        if len(head) < 8 or length > opened.nbytes - 8:
            raise ValueError(f"a header of {length} bytes does not fit in {opened.nbytes} bytes")
        if length > MAX_HEADER_NBYTES:
            raise ValueError(
                f"a header of {length} bytes is longer than the {MAX_HEADER_NBYTES} that any "
                "checkpoint needs"
            )
        file.seek(8)
        return file.read(length), opened


def _tensors(path: Path, header: bytes, nbytes: int) -> Mapping[str, StoredTensor]:
    """Have the package judge the header, and say where each tensor is."""
    from safetensors import SafetensorError, safe_open

    tensors = {}
    at = 8 + len(header)
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.offset_keys():
                described = file.get_slice(name)
                code, shape = described.get_dtype(), tuple(described.get_shape())
                if code not in SAFETENSORS:
                    raise UnsupportedModelError(
                        f"{path}: {printable(name)} is of dtype {printable(code)}, which is not "
                        "read here: several values share a byte, or it is newer. Take the model's "
                        "bfloat16 or float16 files."
                    )
                # The product of other lengths may be of any size where one is 0.
                stride = (0,) * len(shape) if 0 in shape else row_major(shape)
                tensors[name] = StoredTensor(SAFETENSORS[code], shape, stride, at)
                at += tensors[name].nbytes
    except (SafetensorError, OSError) as error:
        ends = [int(end) for end in _END.findall(header)]
        if ends and max(ends) != nbytes - at:
            raise ValueError(
                f"it has {nbytes} bytes and its header describes {at + max(ends)}"
            ) from None
        raise ValueError(printable(error, 300)) from None
    return tensors
