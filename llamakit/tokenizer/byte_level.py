"""The characters that byte-level BPE writes for bytes, so that a token is readable text."""

from __future__ import annotations


def _byte_characters() -> dict[str, int]:
    """Map each character to its byte.

    Source: ``bytes_to_unicode`` in GPT-2's ``encoder.py``.
    """
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    shown = {chr(byte): byte for byte in visible}
    return shown | {chr(256 + number): byte for number, byte in enumerate(others)}


BYTES = _byte_characters()
"""By character."""
_CHARACTERS = {byte: character for character, byte in BYTES.items()}


def from_text(text: str) -> bytes:
    """Return the bytes of a token.

    Raises:
        KeyError: a character is none of the 256.
    """
    return bytes(map(BYTES.__getitem__, text))


def to_text(token: bytes) -> str:
    """Return how a token is written."""
    return "".join(map(_CHARACTERS.__getitem__, token))
