"""Which kind of tokenizer a tokenizer.model is, by how it begins."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from pathlib import Path
from typing import Literal

from llamakit.files.regular_file import open_regular

RANK_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) ([0-9]{1,9})\r?")
"""Of a file of tiktoken ranks: a token in base64, a space and its rank."""
_HEAD_NBYTES = 8192


def tokenizer_kind(path: Path) -> Literal["ranks", "sentencepiece"] | None:
    """Return the kind: tiktoken ranks of Llama 3 and later, or SentencePiece of those before.

    Raises:
        OSError: the file cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        head = file.read(_HEAD_NBYTES).removeprefix(BOM_UTF8)
    if RANK_LINE.fullmatch(head.lstrip(b"\r\n").partition(b"\n")[0]):
        return "ranks"
    return "sentencepiece" if head[:1] == b"\n" else None  # a piece, which is field 1
