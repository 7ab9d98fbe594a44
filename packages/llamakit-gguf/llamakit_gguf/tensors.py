"""Where the tensors of a GGUF model are, over all of its files, and their values.

Files are read, not mapped: one that is truncated meanwhile is an error, and no crash.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from llamakit.errors import DamagedFileError, MissingShardError, UnsupportedModelError
from llamakit.files.regular_file import open_regular
from llamakit.printable import listed, printable
from llamakit_gguf.header import Header, TensorEntry, read_header

Values = npt.NDArray[Any]
_Kind = GGMLQuantizationType
PLAIN = {_Kind.F32: "float32", _Kind.F16: "float16", _Kind.BF16: "bfloat16"}
"""Types whose bytes are numbers, and what the same bytes are called here."""
QUANTIZED = (_Kind.Q8_0, _Kind.Q4_0, _Kind.Q4_K, _Kind.Q6_K)
"""Types that are read as float32, each value what gguf's ``dequantize`` makes of it."""
_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_ALIGNMENT = 32
_LARGEST_ALIGNMENT = 1 << 20
_MOST_VALUES = 1 << 48
_MOST_FILES = 1024
_BLOCK = 1 << 20
"""Values that are dequantized at a time."""
_SPLIT = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf")


@dataclass(frozen=True)
class Tensor:
    """One tensor: what it is, and where."""

    name: str
    path: Path
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file to the first value."""

    @property
    def dtype(self) -> str:
        """What its values are read as."""
        return PLAIN.get(self.kind, "float32")

    @property
    def row_nbytes(self) -> int:
        """How many bytes a row takes, along the last axis."""
        values, nbytes = GGML_QUANT_SIZES[self.kind]
        return self.shape[-1] // values * nbytes

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return math.prod(self.shape[:-1]) * self.row_nbytes


def read_headers(path: Path) -> list[Header]:
    """Read the header of a file, or of each of those that a model is split into, in order.

    Raises:
        MissingShardError: one of them is not there.
        DamagedFileError, UnsupportedModelError: as ``read_header``, or they are no parts of one.
    """
    header = read_header(path)
    count = header.metadata.get("split.count", 1)
    if type(count) is not int or not 0 <= count <= _MOST_FILES:
        raise _damaged(path, f"it claims to be one of {printable(count)} files")
    if count <= 1:
        return [header]
    match = _SPLIT.fullmatch(path.name)
    if match is None or int(match[3]) != count:
        raise MissingShardError(
            f"{path} is one of {count} files, which are found by their names, "
            f"NAME-00001-of-{count:05d}.gguf and so on; give them these names again."
        )
    files = [
        path.with_name(f"{match[1]}-{it:05d}-of-{match[3]}.gguf") for it in range(1, count + 1)
    ]
    if missing := [file.name for file in files if not file.exists()]:
        raise MissingShardError(
            f"{path} is one of {count} files, of which {listed(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not next to it; bring all of them together."
        )
    headers = [header if file == path else read_header(file) for file in files]
    for number, part in enumerate(headers):
        if part.metadata.get("split.no") != number or part.metadata.get("split.count") != count:
            raise _damaged(part.path, f"it is not file {number + 1} of {count}, as its name says")
    return headers


def find_tensors(headers: Sequence[Header]) -> dict[str, Tensor]:
    """Check where the tensors of a model are, and return them by name.

    Raises:
        DamagedFileError: a file ends before its tensors do, or two of them share bytes or a name.
        UnsupportedModelError: one is of a type that is not read.
    """
    tensors: dict[str, Tensor] = {}
    for header in headers:
        found = [_tensor(header, entry) for entry in header.entries]
        _check_places(header, found)
        for tensor in found:
            if tensor.name in tensors:
                raise _damaged(header.path, f"{printable(tensor.name)} is there twice")
            tensors[tensor.name] = tensor
    return tensors


def read_rows(tensor: Tensor, start: int, stop: int, columns: slice = slice(None)) -> Values:
    """Read rows of a matrix, or values of a vector; of the rows, some columns.

    Returns:
        ``(stop - start, …)`` of the tensor's dtype, in memory of its own.

    Raises:
        DamagedFileError: the file ends before the bytes do.
    """
    rows = math.prod(tensor.shape[:-1])
    if len(tensor.shape) < 2:
        (whole,) = _read_blocks(tensor, 0, 1, 1)
        vector: Values = whole[0, start:stop].copy()
        return vector
    assert rows == tensor.shape[0]
    wanted = range(*columns.indices(tensor.shape[1]))
    values = np.empty((stop - start, len(wanted)), _DTYPES[tensor.dtype])
    step = max(1, _BLOCK // tensor.shape[1])
    at = 0
    for block in _read_blocks(tensor, start, stop, step):
        values[at : at + len(block)] = block[:, columns]
        at += len(block)
    return values


def _read_blocks(tensor: Tensor, start: int, stop: int, step: int) -> Iterator[Values]:
    with open_regular(tensor.path) as file:
        file.seek(tensor.offset + start * tensor.row_nbytes)
        for first in range(start, stop, step):
            rows = min(step, stop - first)
            data = file.read(rows * tensor.row_nbytes)
            if len(data) < rows * tensor.row_nbytes:
                raise _damaged(tensor.path, f"it ends within {printable(tensor.name)}")
            yield _values(tensor, np.frombuffer(data, np.uint8).reshape(rows, -1))


def _values(tensor: Tensor, data: npt.NDArray[np.uint8]) -> Values:
    if tensor.kind in PLAIN:
        plain: Values = data.view(_DTYPES[tensor.dtype])
        return plain
    with np.errstate(all="ignore"):  # of a damaged scale; NaN and infinity are values, too
        values: Values = dequantize(data, tensor.kind)
    return values


def _tensor(header: Header, entry: TensorEntry) -> Tensor:
    kind = _kind(header.path, entry)
    if not entry.shape or 0 in entry.shape or math.prod(entry.shape) > _MOST_VALUES:
        raise _damaged(header.path, f"{printable(entry.name)} has the shape {entry.shape}")
    values, _ = GGML_QUANT_SIZES[kind]
    if entry.shape[-1] % values:
        raise _damaged(
            header.path,
            f"{printable(entry.name)} has rows of {entry.shape[-1]} values, and {kind.name} has "
            f"blocks of {values}",
        )
    alignment = header.metadata.get("general.alignment", _ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= _LARGEST_ALIGNMENT:
        raise _damaged(header.path, f"its alignment is {printable(alignment)}")
    begin = -(-header.end // alignment) * alignment
    return Tensor(entry.name, header.path, kind, entry.shape, begin + entry.offset)


def _kind(path: Path, entry: TensorEntry) -> GGMLQuantizationType:
    try:
        kind = GGMLQuantizationType(entry.kind)
    except ValueError:
        kind = None
    if kind in PLAIN or kind in QUANTIZED:
        return kind
    known = ", ".join(it.name for it in (*PLAIN, *QUANTIZED))
    found = kind.name if kind is not None else f"of the unknown type {entry.kind}"
    raise UnsupportedModelError(
        f"{path}: {printable(entry.name)} is {found}, which is not read; read are {known}. Take a "
        "file of the model in one of these, such as Q8_0 or Q4_K_M without Q5 and Q3 layers, or "
        "requantize it: llama-quantize --allow-requantize IN.gguf OUT.gguf Q8_0"
    )


def _check_places(header: Header, tensors: Sequence[Tensor]) -> None:
    """Check that tensors are in the file, and that no two share bytes."""
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda it: it.offset):
        if tensor.offset + tensor.nbytes > header.nbytes:
            raise _damaged(
                header.path,
                f"{printable(tensor.name)} ends at byte {tensor.offset + tensor.nbytes}, and it "
                f"has {header.nbytes}",
            )
        if tensor.offset < end:
            raise _damaged(
                header.path, f"{printable(tensor.name)} begins within {printable(before)}"
            )
        end, before = tensor.offset + tensor.nbytes, tensor.name


def _damaged(path: Path, fault: str) -> DamagedFileError:
    return DamagedFileError(
        f"{path} is no whole GGUF file: {fault}. Download it again, or copy it again."
    )
