"""Gaps between two strings, for ``Llama.text_infilling``."""

from __future__ import annotations

from collections.abc import Sequence

from llamakit.protocols import Tokenizer

_BLANK = "\N{WHITE SMILING FACE}"
"""Takes the space that SentencePiece removes from the start of a text."""


def decode_continuation(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """Decode tokens that follow other text: a space at their start is part of it."""
    return tokenizer.decode([*tokenizer.encode(_BLANK), *tokens]).removeprefix(_BLANK)
