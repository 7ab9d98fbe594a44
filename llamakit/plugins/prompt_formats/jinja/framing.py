"""What the renderer and its worker say to each other: JSON on a pipe, each behind its length."""

from __future__ import annotations

import json
from typing import IO, Any

NO_MEMORY = 3
"""The worker's exit status after a MemoryError: the next rendering gets a new process."""
_PREFIX = 8


def write_message(stream: IO[bytes], value: object) -> None:
    """Write one value."""
    content = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    stream.write(len(content).to_bytes(_PREFIX, "big") + content)
    stream.flush()


def read_message(stream: IO[bytes], largest: int | None = None) -> Any:
    """Read one value.

    Args:
        largest: bytes that it may have.
    Raises:
        EOFError: there is no other value, or not the whole of it.
        ValueError, RecursionError: it is too large, or no JSON.
    """
    nbytes = int.from_bytes(_read_exactly(stream, _PREFIX), "big")
    if largest is not None and nbytes > largest:
        raise ValueError(f"a message of {nbytes} bytes")
    content = _read_exactly(stream, nbytes).decode("utf-8", "surrogatepass")
    return json.loads(content)  # noqa: TID251 - of llamakit's own child


def _read_exactly(stream: IO[bytes], nbytes: int) -> bytes:
    content = stream.read(nbytes)
    if len(content) < nbytes:
        raise EOFError
    return content
