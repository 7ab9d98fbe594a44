"""Text files of others, in the encodings that the tools of Windows, macOS and Linux write."""

from __future__ import annotations

import codecs
import io
from typing import IO, Any, BinaryIO

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decoded_lines(file: BinaryIO) -> IO[Any]:
    """Return a file whose lines are UTF-8 or, where a byte-order mark says UTF-16 or 32, str.

    Args:
        file: at its beginning; buffered.
    """
    head = file.peek(4) if isinstance(file, io.BufferedReader) else b""
    encoding = next((it for mark, it in _MARKS if head.startswith(mark)), "utf-8")
    return file if encoding == "utf-8" else io.TextIOWrapper(file, encoding[:6].rstrip("-"))


def as_utf8(data: bytes) -> bytes:
    """Return text in UTF-8 without a byte-order mark; without a mark, the bytes as they are.

    PowerShell writes UTF-16 with a mark, Windows' editor UTF-8 with one.

    Raises:
        UnicodeDecodeError: the mark is not followed by text in its encoding.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            rest = data[len(mark) :]
            return rest if encoding == "utf-8" else rest.decode(encoding).encode()
    return data
