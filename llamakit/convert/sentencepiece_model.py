"""A SentencePiece model file, read for its pieces and settings without protobuf.

Source: sentencepiece ``src/sentencepiece_model.proto``; the numbers of fields are from there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from llamakit.errors import TokenizerError
from llamakit.files.regular_file import read_bytes

BPE = 2
_MODEL_TYPES = {1: "unigram", BPE: "BPE", 3: "word", 4: "char"}

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_FIXED_NBYTES = {_FIXED_64: 8, _FIXED_32: 4}
_LONGEST_VARINT = 10

_Values = Mapping[int, "int | bytes"]


class PieceType(IntEnum):
    """The kind of a piece."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class VocabularyPiece:
    """One entry of the vocabulary; its id is its place."""

    text: str
    score: float
    type: PieceType


@dataclass(frozen=True)
class SentencePieceModel:
    """What a tokenizer.model says; what the file leaves out is at SentencePiece's default."""

    path: Path
    pieces: tuple[VocabularyPiece, ...]
    """By id."""
    model_type: str
    """``BPE``, ``unigram``, ``word`` or ``char``."""
    byte_fallback: bool
    unk_piece: str
    bos_piece: str
    eos_piece: str
    normalization: str
    """The name of the rules, such as ``identity`` or ``nmt_nfkc``."""
    changes_characters: bool
    """There are rules that replace characters, before encoding or after decoding."""
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    treat_whitespace_as_suffix: bool


def read_sentencepiece_model(path: Path) -> SentencePieceModel:
    """Read a tokenizer.model.

    Raises:
        TokenizerError: the file is something else, or is truncated.
    """
    try:
        return _parse(read_bytes(path), path)
    except ValueError as error:
        raise TokenizerError(
            f"{path}: not a complete SentencePiece model ({error}); expected the tokenizer.model "
            "that came with the weights: copy it again"
        ) from None


def _parse(data: bytes, path: Path) -> SentencePieceModel:
    pieces, parts = [], {}
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(dict(_fields(_bytes(value)))))
        else:
            parts[number] = value
    if 2 not in parts or 3 not in parts:
        raise ValueError("it ends before the settings do")
    trainer: _Values = dict(_fields(_bytes(parts[2])))
    normalizer: _Values = dict(_fields(_bytes(parts[3])))
    denormalizer: _Values = dict(_fields(_bytes(parts.get(5, b""))))
    kind = _int(trainer, 3, 1)
    return SentencePieceModel(
        path=path,
        pieces=tuple(pieces),
        model_type=_MODEL_TYPES.get(kind, f"type {kind}"),
        byte_fallback=bool(_int(trainer, 35, 0)),
        unk_piece=_text(trainer, 45, "<unk>"),
        bos_piece=_text(trainer, 46, "<s>"),
        eos_piece=_text(trainer, 47, "</s>"),
        normalization=_text(normalizer, 1, "unnamed"),
        changes_characters=any(_bytes(rules.get(2, b"")) for rules in (normalizer, denormalizer)),
        add_dummy_prefix=bool(_int(normalizer, 3, 1)),
        remove_extra_whitespaces=bool(_int(normalizer, 4, 1)),
        escape_whitespaces=bool(_int(normalizer, 5, 1)),
        treat_whitespace_as_suffix=bool(_int(trainer, 24, 0)),
    )


def _piece(values: _Values) -> VocabularyPiece:
    score = values.get(2, bytes(4))
    if not isinstance(score, bytes) or len(score) != 4:
        raise ValueError("a piece has no number for a score")
    return VocabularyPiece(
        _text(values, 1, ""), struct.unpack("<f", score)[0], PieceType(_int(values, 3, 1))
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Split a message into its fields: their numbers and raw values.

    Source: https://protobuf.dev/programming-guides/encoding/
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _VARINT:
            number, at = _varint(data, at)
            yield key >> 3, number
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in _FIXED_NBYTES:
            length = _FIXED_NBYTES[wire]
        else:
            raise ValueError(f"no field begins with {key}")
        if at + length > len(data):
            raise ValueError("it is truncated")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, lowest first; return it and where it ends."""
    value = 0
    for index, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("it is truncated")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("there is a number where a part is expected")
    return value


def _int(values: _Values, number: int, default: int) -> int:
    value = values.get(number, default)
    if not isinstance(value, int):
        raise ValueError("there is a string where a number is expected")
    return value


def _text(values: _Values, number: int, default: str) -> str:
    return _bytes(values.get(number, default.encode())).decode()
