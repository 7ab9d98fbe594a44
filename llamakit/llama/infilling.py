"""Gaps between two strings, for ``Llama.text_infilling``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from llamakit.protocols import PromptFormat, TextFormat, Tokenizer

_BLANK = "\N{WHITE SMILING FACE}"
"""Takes the space that SentencePiece removes from the start of a text."""


@dataclass(frozen=True)
class Gap:
    """What is before and behind a gap."""

    prefix: str
    suffix: str

    @property
    def marker(self) -> str:
        """A string that marks a gap, and that neither side holds."""
        names = (f"<FILL_{number}>" for number in itertools.count())
        return next(name for name in names if name not in self.prefix + self.suffix)

    def options(self, suffix_first: bool) -> dict[str, Any]:
        """Return the options of the prompt format ``infill``."""
        return {"marker": self.marker, "suffix_first": suffix_first}

    def encode(self, infill: PromptFormat) -> list[int]:
        """Return the prompt, by the format with these options."""
        return cast(TextFormat, infill).encode_text(self.filled(self.marker))

    def filled(self, text: str) -> str:
        """Return both sides with ``text`` between them."""
        return f"{self.prefix}{text}{self.suffix}"


def decode_continuation(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """Decode tokens that follow other text: a space at their start is part of it."""
    return tokenizer.decode([*tokenizer.encode(_BLANK), *tokens]).removeprefix(_BLANK)
