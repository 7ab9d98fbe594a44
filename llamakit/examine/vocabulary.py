"""Checks from their sizes whether a tokenizer belongs to a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llamakit.checkpoint.capabilities import embedded_files
from llamakit.errors import TokenizerError
from llamakit.examine.steps import Opener
from llamakit.protocols import Checkpoint, Tokenizer

_TOKENIZERS = ("tokenizer.model", "tokenizer.json")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer next to a checkpoint."""

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
    if not embedded_files(checkpoint).keys().isdisjoint(_TOKENIZERS):
        path = folder
    try:
        tokenizer = _of_a_plugin(places, opener) if path is None else opener.load_tokenizer(path)
    except TokenizerError as error:
        return Vocabulary(path, fault=error.for_commands)
    except OSError as error:
        return Vocabulary(path, fault=f"{path} cannot be read: {error.strerror}.")
    if tokenizer is None:
        other = folder / "tokenizer.json"
        return Vocabulary(other if other.exists() else None)
    return _compared(tokenizer, checkpoint)


def _compared(tokenizer: Tokenizer, checkpoint: Checkpoint) -> Vocabulary:
    """Compare a tokenizer with a checkpoint, which decides what follows the tokens of some."""
    for_model = getattr(tokenizer, "for_model", None)
    fitted: Tokenizer = tokenizer if for_model is None else for_model(checkpoint.params)
    path, size, rows = fitted.path, fitted.vocab_size, checkpoint.params.vocab_size
    if size <= rows:
        return Vocabulary(path, size)
    return Vocabulary(
        path,
        size,
        f"{path} has {size} tokens but the embedding of {checkpoint.path} has {rows} rows: it is "
        "the tokenizer of another model; bring both from the same download.",
    )


def _of_a_plugin(places: Sequence[Path], opener: Opener) -> Tokenizer | None:
    """Load a ``tokenizer`` of another ending, if a plugin knows one."""
    for place in places:
        for path in sorted(place.parent.glob("tokenizer.*")):
            if path.is_file() and len(path.suffixes) == 1:
                try:
                    return opener.load_tokenizer(path)
                except TokenizerError:
                    continue
    return None
