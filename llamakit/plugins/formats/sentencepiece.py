"""The tokenizer of Llama 1, Llama 2 and Code Llama."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from llamakit.protocols import Tokenizer


@hookimpl
def load_tokenizer(path: Path) -> Tokenizer | None:
    """Load a SentencePiece model; a .json is another plugin's."""
    if path.suffix == ".json":
        return None
    from llamakit.tokenizer.sentencepiece import load

    return load(path)
