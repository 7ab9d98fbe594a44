"""tiktoken's rank files, of Llama 3 and later: a token in base64 and its rank a line."""

from __future__ import annotations

import base64
import binascii
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from llamakit.errors import TokenizerError
from llamakit.files.regular_file import open_regular
from llamakit.files.tokenizer_kind import RANK_LINE

MAX_NBYTES = 8 << 20
"""Llama 4's file has under 4 MB, and 200,000 ranks."""
MAX_RANKS = 1 << 20
MAX_TOKEN_NBYTES = 1024
"""The longest token of Llama 3 has 128 bytes."""

_REMEDY = "copy the file again from where the weights are"


def read_ranks(path: Path) -> list[bytes]:
    """Return the bytes of each token, in the order of the ranks.

    Raises:
        TokenizerError: the file is too large, or damaged; the message names the line.
    """
    with open_regular(path) as file:
        data = file.read(MAX_NBYTES + 1)
    if len(data) > MAX_NBYTES:
        raise TokenizerError(f"{path} is over {MAX_NBYTES} bytes; no rank file is: {_REMEDY}")
    by_rank: dict[int, bytes] = {}
    for number, line in enumerate(data.removeprefix(BOM_UTF8).split(b"\n"), start=1):
        if line.strip():
            rank, token = _parse(line, f"{path}, line {number}")
            if rank in by_rank:
                raise TokenizerError(f"{path}, line {number}: rank {rank} a second time: {_REMEDY}")
            by_rank[rank] = token
    return check_ranks(by_rank, path)


def format_ranks(ranks: Sequence[bytes]) -> bytes:
    """Return a rank file, byte for byte as Meta writes it."""
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(ranks))
    return b"".join(lines)


def _parse(line: bytes, where: str) -> tuple[int, bytes]:
    if (match := RANK_LINE.fullmatch(line)) is None:
        raise TokenizerError(
            f"{where}: {line!r:.60}; expected the base64 of a token, a space and its rank: "
            f"{_REMEDY}"
        )
    try:
        token = base64.b64decode(match[1], validate=True)
    except binascii.Error as error:
        raise TokenizerError(f"{where}: {match[1]!r:.60} is not base64: {_REMEDY}") from error
    if not 0 < len(token) <= MAX_TOKEN_NBYTES:
        raise TokenizerError(
            f"{where}: a token of {len(token)} bytes; expected 1 to {MAX_TOKEN_NBYTES}: {_REMEDY}"
        )
    if (rank := int(match[2])) >= MAX_RANKS:
        raise TokenizerError(f"{where}: rank {rank}; no file has {MAX_RANKS} of them: {_REMEDY}")
    return rank, token


def check_ranks(by_rank: dict[int, bytes], path: Path) -> list[bytes]:
    """Return the tokens in the order of their ranks.

    Raises:
        TokenizerError: a rank or a byte is missing, or a token has two ranks.
    """
    count = len(by_rank)
    missing = next((rank for rank in range(count) if rank not in by_rank), None)
    if missing is not None:
        raise TokenizerError(
            f"{path}: rank {missing} is missing, of those up to {max(by_rank)}; they have no gaps: "
            f"{_REMEDY}"
        )
    tokens = [by_rank[rank] for rank in range(count)]
    known = set(tokens)
    if len(known) != count:
        twice = next(token for token, times in Counter(tokens).items() if times > 1)
        raise TokenizerError(f"{path}: the token {twice!r:.60} has two ranks: {_REMEDY}")
    if lacking := [byte for byte in range(256) if bytes([byte]) not in known]:
        raise TokenizerError(
            f"{path}: no token is the byte 0x{lacking[0]:02X} alone ({len(lacking)} of 256 bytes "
            f"are missing), so not every text could be encoded: {_REMEDY}"
        )
    return tokens
