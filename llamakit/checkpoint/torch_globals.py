"""What the pickle of a dict of tensors may name, and what each name becomes here.

Nothing of torch's is imported and nothing of the file's is called: a name is looked up in
``GLOBALS``, and what is found there only takes values apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

from llamakit.checkpoint.dtypes import DTYPES, TORCH_STORAGES, itemsize
from llamakit.checkpoint.tensor_file import check_shape, extent


@dataclass(frozen=True)
class StorageType:
    """A class of storages."""

    dtype: str | None
    """None: the storage is of bytes, and each tensor says its own dtype."""


@dataclass(frozen=True)
class DType:
    """A dtype, such as ``torch.float8_e4m3fn``."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A run of values in a file of its own within the .pth."""

    key: str
    type: StorageType
    length: int
    """In values; in bytes for a storage of bytes."""


@dataclass(frozen=True)
class TensorRecord:
    """What the pickle says of one tensor. Lengths and offsets count values of its dtype."""

    storage_key: str
    dtype: str
    storage_numel: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Buffer:
    """Bytes that are no tensor: the ``_extra_state`` of Llama 4's layers. They are not kept."""


@dataclass(frozen=True)
class Rebuild:
    """A function that takes the arguments of one of torch's apart."""

    function: Callable[..., object]


def storage_from_id(identity: object) -> Storage:
    """Read a persistent id: ``("storage", type, key, location, length)``.

    Raises:
        ValueError: it is something else.
    """
    match identity:
        case ("storage", StorageType() as kind, str(key), str(), length) if _is_count(length):
            return Storage(key, kind, length)
    raise ValueError("a storage is described in a way that torch does not write")


def _buffer(*_content: object) -> Buffer:
    return Buffer()


def _ordered_dict() -> dict[object, object]:
    return {}


def _tensor(
    storage: object,
    offset: object,
    shape: object,
    stride: object,
    _requires_grad: object = False,
    _hooks: object = None,
    flags: object = None,
) -> TensorRecord:
    if not isinstance(storage, Storage) or storage.type.dtype is None:
        raise ValueError("a tensor has no typed storage")
    return _record(storage, storage.type.dtype, offset, shape, stride, flags)


def _tensor_with_dtype(
    storage: object,
    offset: object,
    shape: object,
    stride: object,
    _requires_grad: object,
    _hooks: object,
    dtype: object,
    flags: object = None,
) -> TensorRecord:
    if not isinstance(storage, Storage) or not isinstance(dtype, DType):
        raise ValueError("a tensor has no storage or no dtype")
    return _record(storage, dtype.name, offset, shape, stride, flags)


def _parameter(tensor: object, _requires_grad: object, _hooks: object) -> TensorRecord:
    if not isinstance(tensor, TensorRecord):
        raise ValueError("a parameter holds something that is no tensor")
    return tensor


def _record(
    storage: Storage, dtype: str, offset: object, shape: object, stride: object, flags: object
) -> TensorRecord:
    if flags:
        raise ValueError("a tensor is marked as conjugated or negated")
    if not (_is_count(offset) and _are_counts(shape) and _are_counts(stride)):
        raise ValueError("a tensor's offset, shape or stride is not made of counts")
    if len(shape) != len(stride):
        raise ValueError("a tensor's shape and stride are of different lengths")
    check_shape(shape)
    length = _length_in(dtype, storage)
    reach = offset + extent(shape, stride)
    if reach > length:
        raise ValueError(f"a tensor reaches value {reach} of a storage of {length}")
    numel = math.prod(shape)
    if numel > length:
        # One value that is repeated 2**40 times would be read 2**40 times.
        raise ValueError(f"a tensor has {numel} values in a storage of {length}")
    return TensorRecord(storage.key, dtype, length, offset, shape, stride)


def _length_in(dtype: str, storage: Storage) -> int:
    held = 1 if storage.type.dtype is None else itemsize(storage.type.dtype)
    return storage.length * held // itemsize(dtype)


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 62


def _are_counts(values: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(values, tuple) and all(_is_count(value) for value in values)


GLOBALS: dict[str, StorageType | DType | Rebuild] = {
    **dict.fromkeys(("_io.BytesIO", "_codecs.encode", "__builtin__.bytes"), Rebuild(_buffer)),
    "collections.OrderedDict": Rebuild(_ordered_dict),
    "torch._utils._rebuild_tensor": Rebuild(_tensor),
    "torch._utils._rebuild_tensor_v2": Rebuild(_tensor),
    "torch._utils._rebuild_tensor_v3": Rebuild(_tensor_with_dtype),
    "torch._utils._rebuild_parameter": Rebuild(_parameter),
    "torch.storage.UntypedStorage": StorageType(None),
    **{f"torch.{name}": StorageType(dtype) for name, dtype in TORCH_STORAGES.items()},
    **{f"torch.{name}": DType(name) for name in DTYPES},
}
