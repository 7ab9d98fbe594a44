"""The parts of a tokenizer.json that are the same for SentencePiece and tiktoken ranks."""

from __future__ import annotations

from collections.abc import Sequence

from llamakit.tokenizer.added_tokens import AddedToken

FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
"""Of an added token, in the order of the tokenizers package."""


def added_tokens(added: Sequence[AddedToken]) -> list[dict[str, object]]:
    """Say what ``added_tokens`` lists."""
    return [
        {"id": new.id, "content": new.content, **FLAGS, "special": new.special} for new in added
    ]


def bos_template(bos: str, token: int) -> dict[str, object]:
    """Put the first token before a string, and before each of two.

    Args:
        token: ID of ``bos``.
    """

    def special(segment: int) -> dict[str, object]:
        return {"SpecialToken": {"id": bos, "type_id": segment}}

    def text(name: str, segment: int) -> dict[str, object]:
        return {"Sequence": {"id": name, "type_id": segment}}

    return {
        "type": "TemplateProcessing",
        "single": [special(0), text("A", 0)],
        "pair": [special(0), text("A", 0), special(1), text("B", 1)],
        "special_tokens": {bos: {"id": bos, "ids": [token], "tokens": [bos]}},
    }
