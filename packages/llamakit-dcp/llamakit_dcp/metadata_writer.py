"""Writes the ``.metadata`` of a distributed checkpoint: the pickle of torch's class ``Metadata``.

It is put together from its operations, in protocol 2: importing torch to have its classes pickle
themselves would take four times the memory of the whole export.

Source: ``pickletools``; torch's ``torch/distributed/checkpoint/metadata.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llamakit.checkpoint.pickle_operations import global_op, integer_op, text_op, tuple_op
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
        "state_dict_metadata": _dict((text_op(name), _tensor(it)) for name, it in tensors.items()),
        "planner_data": _dict((text_op(it), tuple_op(map(text_op, paths[it]))) for it in tensors),
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
    layout = (
        global_op("torch.serialization._get_layout") + tuple_op([text_op("torch.strided")]) + b"R"
    )
    memory = global_op(f"{CLASSES}_MEM_FORMAT_ENCODING") + tuple_op([integer_op(0)]) + b"R"
    state = tuple_op([global_op(f"torch.{dtype}"), layout, _FALSE, memory, _FALSE])
    return global_op(f"{CLASSES}TensorProperties") + b")\x81" + state + b"b"


def _index(name: str, number: int, offsets: tuple[int, ...]) -> bytes:
    state = {"fqn": text_op(name), "index": integer_op(number), "offset": _size(offsets)}
    return _object(f"{CLASSES}MetadataIndex", state)


def _place(file: str, offset: int, nbytes: int) -> bytes:
    state = {
        "relative_path": text_op(file),
        "offset": integer_op(offset),
        "length": integer_op(nbytes),
    }
    return _object(PLACE, state)


def _object(name: str, state: Mapping[str, bytes]) -> bytes:
    return (
        global_op(name) + b")\x81" + _dict((text_op(key), it) for key, it in state.items()) + b"b"
    )


def _dict(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"}" + b"".join(key + value + b"s" for key, value in items)


def _size(lengths: tuple[int, ...]) -> bytes:
    return global_op("torch.Size") + tuple_op([tuple_op(map(integer_op, lengths))]) + b"R"
