"""The tokenizer of Llama 3 and later in Meta's format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from llamakit.protocols import Tokenizer


@hookimpl
def load_tokenizer(path: Path) -> Tokenizer | None:
    """Load a file of tiktoken ranks: base64 and a number a line."""
    from llamakit.tokenizer.rank_tokenizer import load

    return load(path)
