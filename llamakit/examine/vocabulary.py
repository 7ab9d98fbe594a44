"""Checks from their sizes whether a tokenizer belongs to a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llamakit.checkpoint.llama_generation import is_tiktoken
from llamakit.errors import TokenizerError
from llamakit.examine.steps import Opener
from llamakit.files.regular_file import open_regular
from llamakit.protocols import Checkpoint

_TIKTOKEN_SPECIAL = 256
"""Llama 3's special tokens, which are in no file."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer beside a checkpoint."""

    path: Path | None
    """None: there is none, in the folder or in its parent."""
    size: int | None = None
    """How many tokens it has; None where that could not be read."""
    fault: str = ""
    """Why it is not this checkpoint's, or no tokenizer at all."""


def find_vocabulary(checkpoint: Checkpoint, opener: Opener) -> Vocabulary:
    """Compare the tokenizer in a checkpoint's folder, or its parent's, with the embedding."""
    folder = checkpoint.path
    places = (folder / "tokenizer.model", folder.resolve().parent / "tokenizer.model")
    path = next((place for place in places if place.exists()), None)
    path = path or _of_a_plugin(places, opener)
    if path is None:
        other = folder / "tokenizer.json"
        return Vocabulary(other if other.exists() else None)
    try:
        size = _size(path, opener)
    except TokenizerError as error:
        return Vocabulary(path, fault=str(error))
    except OSError as error:
        return Vocabulary(path, fault=f"{path} cannot be read: {error.strerror}.")
    rows = checkpoint.params.vocab_size
    if size <= rows:
        return Vocabulary(path, size)
    return Vocabulary(
        path,
        size,
        f"{path} has {size} tokens but the embedding of {folder} has {rows} rows: it is the "
        "tokenizer of another model; bring both from the same download.",
    )


def _of_a_plugin(places: Sequence[Path], opener: Opener) -> Path | None:
    """Find a ``tokenizer`` of another ending that a plugin loads."""
    for place in places:
        for path in sorted(place.parent.glob("tokenizer.*")):
            if path.is_file() and len(path.suffixes) == 1:
                try:
                    opener.load_tokenizer(path)
                except TokenizerError:
                    continue
                return path
    return None


def _size(path: Path, opener: Opener) -> int:
    if is_tiktoken(path):
        with open_regular(path) as file:
            return sum(1 for line in file if line.strip()) + _TIKTOKEN_SPECIAL
    return opener.load_tokenizer(path).vocab_size
