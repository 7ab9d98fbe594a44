"""The tokenizer of Llama 3 and later in Hugging Face's format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from llamakit.protocols import Tokenizer


@hookimpl
def load_tokenizer(path: Path) -> Tokenizer | None:
    """Load the tokenizer.json of a Llama 3 or later; others have a tokenizer.model."""
    if path.name != "tokenizer.json":
        return None
    from llamakit.tokenizer.tokenizer_json import load

    return load(path)
