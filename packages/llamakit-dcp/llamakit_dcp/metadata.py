"""The ``.metadata`` of a distributed checkpoint: its tensors, and where their chunks are.

It is a pickle of torch's class ``Metadata``. Nothing is unpickled: llamakit's own reader makes
records of the few names that such a file needs, and refuses all others.

Source: torch's ``torch/distributed/checkpoint/metadata.py`` and ``filesystem.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamakit.checkpoint.pickle_records import Name, Record, read_records
from llamakit.errors import DamagedFileError, UnsupportedModelError
from llamakit.files.regular_file import open_regular
from llamakit.printable import printable

METADATA = ".metadata"
_MAX_NBYTES = 64 << 20
CLASSES = "torch.distributed.checkpoint.metadata."
_OLD = "torch.distributed._shard.sharded_tensor.metadata."
_TENSOR = f"{CLASSES}TensorStorageMetadata"
_CHUNK = f"{CLASSES}ChunkStorageMetadata"
_INDEX = f"{CLASSES}MetadataIndex"
PLACE = "torch.distributed.checkpoint.filesystem._StorageInfo"
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
_DTYPES = {
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool", "float8_e4m3fn", "float8_e4m3fnuz"), 1),
    **dict.fromkeys(("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"), 1),
    "complex128": 16,
}
"""The bytes of a value, by torch's names."""
_NAMES = (
    *(f"{CLASSES}{name}" for name in ("Metadata", "BytesStorageMetadata", "StorageMeta")),
    *(f"{CLASSES}{name}" for name in ("TensorProperties", "_MEM_FORMAT_ENCODING")),
    *(f"{CLASSES}MEM_FORMAT_ENCODING", f"{_OLD}TensorProperties", f"{_OLD}MEM_FORMAT_ENCODING"),
    *(_TENSOR, _CHUNK, _INDEX, PLACE, "torch.Size", "torch.serialization._get_layout"),
    *(f"{module}.{kind}" for module in ("pathlib", "pathlib._local") for kind in _PATHS),
    *("collections.OrderedDict", *(f"torch.{dtype}" for dtype in _DTYPES)),
)
"""All that torch from 2.1 on has written into such a file."""
_NBYTES_PER_OPERATION = 16
_MOST_OPERATIONS = 30_000_000
"""A chunk takes some 60 operations of the index, and torch.save makes at least 1,300 bytes of it.
So a small folder cannot keep its reader busy, and 405B with its optimizer on 128 ranks is read."""
_MAX_LENGTH = 1 << 58
_MAX_AXES = 32
_MAX_NAME_LENGTH, _MAX_FILE_NAME_LENGTH = 500, 255


@dataclass(frozen=True)
class ChunkPlace:
    """A box of a tensor, and the file that holds it."""

    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    file: str
    offset: int
    nbytes: int
    """Of what torch.save has written there, or of the values alone where safetensors has."""


@dataclass(frozen=True)
class TensorEntry:
    """What the index says of one tensor."""

    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[ChunkPlace, ...]

    @property
    def nbytes(self) -> int:
        """How many bytes its values take."""
        return math.prod(self.shape) * _DTYPES[self.dtype]


@dataclass(frozen=True)
class Index:
    """What the index says of everything."""

    tensors: Mapping[str, TensorEntry]
    others: tuple[str, ...]
    """The names of what is no tensor, such as the number of a step; nothing of it is read."""


def read_metadata(path: Path) -> Index:
    """Read the index of a distributed checkpoint.

    Args:
        path: the file ``.metadata``.

    Raises:
        DamagedFileError: it cannot be read, or is not what torch writes.
        UnsafePickleError: it asks for something that no index needs; nothing was run.
        UnsupportedModelError: it is of a kind that is not read here.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_NBYTES + 1)
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror}.") from None
    stored = sum(file.stat().st_size for file in path.parent.glob("*.distcp"))
    extra = min(stored // _NBYTES_PER_OPERATION, _MOST_OPERATIONS)
    metadata = read_records(data, str(path), _NAMES, extra_operations=extra)
    try:
        return _index(metadata, path)
    except ValueError as error:
        raise DamagedFileError(
            f"{path} is no index of a distributed checkpoint as torch writes it: {error}. Copy "
            "the folder again."
        ) from None


def _index(metadata: Any, path: Path) -> Index:
    fields = _fields(metadata, f"{CLASSES}Metadata")
    described, stored = fields.get("state_dict_metadata"), fields.get("storage_data")
    if not isinstance(described, dict) or not isinstance(stored, dict):
        raise ValueError("it has no tensors, or not their places")
    places = dict(_places(stored, path))
    tensors, others, chunks = {}, [], 0
    for key, value in described.items():
        name = _name(key, _MAX_NAME_LENGTH)
        if isinstance(value, Record) and value.name == _TENSOR:
            tensors[name] = _entry(name, value, places)
            chunks += len(tensors[name].chunks)
            if chunks > len(places):  # one list of chunks may be that of many tensors
                raise ValueError("it has more chunks than places")
        else:
            others.append(name)
    return Index(tensors, tuple(others))


def _places(stored: Mapping[Any, Any], path: Path) -> Iterator[tuple[str, tuple[str, int, int]]]:
    """Yield for each chunk which file it is in, from where on and how long it is."""
    for key, value in stored.items():
        index, place = _fields(key, _INDEX), _fields(value, PLACE)
        name = _name(index.get("fqn"), _MAX_NAME_LENGTH)
        file = _name(place.get("relative_path"), _MAX_FILE_NAME_LENGTH)
        offset, nbytes = _counts([place.get("offset"), place.get("length")])
        if place.get("transform_descriptors"):
            raise UnsupportedModelError(
                f"{path}: the files of the checkpoint are compressed (transform_descriptors), "
                "which is not read. Save it without extensions."
            )
        if "/" in file or "\\" in file or file in (".", ".."):
            raise ValueError(f"{file!r} is no file in the folder")
        if index.get("offset") is not None:  # without one it is no tensor's
            yield _key(name, _size(index["offset"])), (file, offset, nbytes)


def _entry(name: str, tensor: Record, places: Mapping[str, tuple[str, int, int]]) -> TensorEntry:
    fields = _fields(tensor, _TENSOR)
    chunks, properties = fields.get("chunks"), fields.get("properties")
    if not isinstance(chunks, list) or not isinstance(properties, Record):
        raise ValueError(f"{printable(name, 60)} has no chunks")
    if len(chunks) > len(places):
        raise ValueError(f"{printable(name, 60)} has more chunks than there are places")
    found = []
    for chunk in chunks:
        box = _fields(chunk, _CHUNK)
        offsets, shape = _size(box.get("offsets")), _size(box.get("sizes"))
        place = places.get(_key(name, offsets))
        if place is None:
            raise ValueError(f"nothing says where {printable(name, 60)} at {offsets} is")
        found.append(ChunkPlace(offsets, shape, *place))
    return TensorEntry(_size(fields.get("size")), _dtype(properties), tuple(found))


def _dtype(properties: Record) -> str:
    """Read the dtype of ``TensorProperties``, whose state is a tuple or, long ago, a dict."""
    match properties.state:
        case {"dtype": Name(name)} | (Name(name), *_):
            if name.removeprefix("torch.") in _DTYPES:
                return name.removeprefix("torch.")
    raise ValueError("a tensor has no known dtype")


def _fields(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Record) or value.name != name or not isinstance(value.state, dict):
        raise ValueError(f"there is no {name.rpartition('.')[2]} where one is expected")
    return value.state


def _size(value: Any) -> tuple[int, ...]:
    match value:
        case Record(name="torch.Size", arguments=(tuple() | list() as lengths,)):
            return _counts(lengths)
    raise ValueError("a shape or an offset is no torch.Size")


def _counts(values: Sequence[Any]) -> tuple[int, ...]:
    is_count = all(type(value) is int and 0 <= value < _MAX_LENGTH for value in values)
    if len(values) > _MAX_AXES or not is_count:
        raise ValueError("a shape or an offset is not made of counts")
    return tuple(values)


def _name(value: Any, limit: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
        raise ValueError(f"something has no name of up to {limit} printable characters")
    return value


def _key(name: str, offsets: tuple[int, ...]) -> str:
    """Return one text for a name and an offset: hashes of numbers can be made to clash."""
    return f"{offsets}{name}"
