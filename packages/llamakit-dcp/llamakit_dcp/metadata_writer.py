"""Writes the ``.metadata`` of a distributed checkpoint: the pickle of torch's class ``Metadata``.

It is put together from its operations, in protocol 2: importing torch to have its classes pickle
themselves would take four times the memory of the whole export.

Source: ``pickletools``; torch's ``torch/distributed/checkpoint/metadata.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from llamakit_dcp.metadata import CLASSES, PLACE, TensorEntry

_NONE, _FALSE = b"N", b"\x89"


def metadata_bytes(
    tensors: Mapping[str, TensorEntry], paths: Mapping[str, tuple[str, ...]]
) -> bytes:
    """Return the index of these tensors.

    Args:
        tensors: by name.
        paths: in which dicts of a state dict each is, and its name there.
    """
    places = (
        (_index(name, number, chunk.offsets), _place(chunk.file, chunk.offset, chunk.nbytes))
        for name, entry in tensors.items()
        for number, chunk in enumerate(entry.chunks)
    )
    metadata = {
        "state_dict_metadata": _dict((_text(name), _tensor(it)) for name, it in tensors.items()),
        "planner_data": _dict((_text(it), _tuple(map(_text, paths[it]))) for it in tensors),
        "storage_data": _dict(places),
        "storage_meta": _object(
            f"{CLASSES}StorageMeta",
            {"checkpoint_id": _NONE, "save_id": _NONE, "load_id": _NONE, "modules": b"]"},
        ),
    }
    return b"\x80\x02" + _object(f"{CLASSES}Metadata", metadata) + b"."


def _tensor(entry: TensorEntry) -> bytes:
    chunks = (
        _object(f"{CLASSES}ChunkStorageMetadata", {"offsets": _size(a), "sizes": _size(n)}) + b"a"
        for a, n in ((chunk.offsets, chunk.shape) for chunk in entry.chunks)
    )
    state = {
        "properties": _properties(entry.dtype),
        "size": _size(entry.shape),
        "chunks": b"]" + b"".join(chunks),
    }
    return _object(f"{CLASSES}TensorStorageMetadata", state)


def _properties(dtype: str) -> bytes:
    """Write ``TensorProperties``, whose state is a tuple: strided, contiguous, no gradient."""
    layout = _global("torch.serialization._get_layout") + _tuple([_text("torch.strided")]) + b"R"
    memory = _global(f"{CLASSES}_MEM_FORMAT_ENCODING") + _tuple([_integer(0)]) + b"R"
    state = _tuple([_global(f"torch.{dtype}"), layout, _FALSE, memory, _FALSE])
    return _global(f"{CLASSES}TensorProperties") + b")\x81" + state + b"b"


def _index(name: str, number: int, offsets: tuple[int, ...]) -> bytes:
    state = {"fqn": _text(name), "index": _integer(number), "offset": _size(offsets)}
    return _object(f"{CLASSES}MetadataIndex", state)


def _place(file: str, offset: int, nbytes: int) -> bytes:
    state = {"relative_path": _text(file), "offset": _integer(offset), "length": _integer(nbytes)}
    return _object(PLACE, state)


def _object(name: str, state: Mapping[str, bytes]) -> bytes:
    return _global(name) + b")\x81" + _dict((_text(key), it) for key, it in state.items()) + b"b"


def _dict(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"}" + b"".join(key + value + b"s" for key, value in items)


def _size(lengths: tuple[int, ...]) -> bytes:
    return _global("torch.Size") + _tuple([_tuple(map(_integer, lengths))]) + b"R"


def _tuple(items: Iterable[bytes]) -> bytes:
    return b"(" + b"".join(items) + b"t"


def _global(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(number: int) -> bytes:
    if number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    data = number.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data
