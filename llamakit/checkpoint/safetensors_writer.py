"""The bytes of a .safetensors: a JSON header that says where each tensor is, then the values.

Source: the format's description, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from llamakit.checkpoint.dtypes import SAFETENSORS
from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.errors import UnsupportedModelError

_CODES = {dtype: code for code, dtype in SAFETENSORS.items()}
_ALIGNMENT = 8


class SafetensorsLayout:
    """A .safetensors of the given tensors, one after the other."""

    needs_crc = False

    def __init__(self, tensors: Sequence[TensorSpec]) -> None:
        """Lay out a file.

        Args:
            tensors: in order; each with values of its own, for the format knows no other.

        Raises:
            UnsupportedModelError: a dtype that the format does not have.
        """
        assert all(tensor.same_as is None for tensor in tensors)
        self.stored = tuple(tensors)
        self.head = _header(tensors)

    @property
    def nbytes(self) -> int:
        """The size of the whole file."""
        return len(self.head) + sum(tensor.nbytes for tensor in self.stored)

    def before(self, index: int) -> bytes:  # noqa: ARG002
        """Return nothing: the values follow one another."""
        return b""

    def after(self, index: int, crc: int) -> bytes:  # noqa: ARG002
        """Return nothing: the format has no checksums."""
        return b""

    def tail(self, crcs: Sequence[int]) -> bytes:  # noqa: ARG002
        """Return nothing: the file ends with the last value."""
        return b""


def _header(tensors: Sequence[TensorSpec]) -> bytes:
    # transformers refuses a file that does not say which library its tensors are of.
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        if tensor.dtype not in _CODES:
            raise UnsupportedModelError(
                f"{tensor.name} is of dtype {tensor.dtype}, which a .safetensors does not have; "
                f"it has {', '.join(_CODES)}."
            )
        header[tensor.name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
