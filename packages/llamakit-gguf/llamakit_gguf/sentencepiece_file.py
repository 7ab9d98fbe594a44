"""A SentencePiece model, written from its pieces: what a tokenizer.model holds.

Source: sentencepiece ``src/sentencepiece_model.proto``; the numbers of fields are from there.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

_NORMAL = 1
_BPE = 2


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its ID is its place."""

    text: bytes
    score: float
    kind: int
    """1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte."""


def model_file(pieces: Sequence[Piece], settings: bytes) -> bytes:
    """Return a tokenizer.model.

    Args:
        settings: all that follows the pieces.
    """
    return b"".join(map(_piece, pieces)) + settings


def settings_of(model: bytes) -> bytes:
    """Return all that follows the pieces of a tokenizer.model that has them first."""
    at = 0
    while model[at : at + 1] == b"\x0a":
        nbytes, at = _read_varint(model, at + 1)
        at += nbytes
    return model[at:]


def default_settings(
    pieces: Sequence[Piece], *, unk: int, bos: int, eos: int, adds_space: bool
) -> bytes:
    """Return the settings of Llama 2's tokenizer: BPE, bytes for what is unknown, no normalizing.

    Args:
        unk, bos, eos: token IDs.
        adds_space: before a string.
    """
    trainer = [
        *(_number(3, _BPE), _number(4, len(pieces)), _number(35, 1)),
        *(_number(40, unk), _number(41, bos), _number(42, eos), _number(43, -1)),
        *(_bytes(45 + at, pieces[it].text) for at, it in enumerate((unk, bos, eos))),
    ]
    normalizer = [_bytes(1, b"identity"), _number(3, adds_space), _number(4, 0), _number(5, 1)]
    return _bytes(2, b"".join(trainer)) + _bytes(3, b"".join(normalizer))


def _piece(piece: Piece) -> bytes:
    kind = b"" if piece.kind == _NORMAL else _number(3, piece.kind)
    score = b"\x15" + struct.pack("<f", piece.score)
    return _bytes(1, _bytes(1, piece.text) + score + kind)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value % (1 << 64))


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            return value, at
