"""The operations of a pickle, in protocol 2, for a writer that puts one together from them.

So classes are written that are not imported, such as torch's.

Source: ``pickletools``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable


def global_op(name: str) -> bytes:
    """Push a class, a function or a constant of a module.

    Args:
        name: as ``module.name``.
    """
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def tuple_op(items: Iterable[bytes]) -> bytes:
    """Push a tuple of what these push."""
    return b"(" + b"".join(items) + b"t"


def text_op(text: str) -> bytes:
    """Push a string."""
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer_op(number: int) -> bytes:
    """Push a number from 0 to 2**71 - 1."""
    if number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    data = number.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data
