"""The Python face of llamakit: paths in, rooms called, values out."""

from __future__ import annotations

from pathlib import Path

from llamakit.llama import ChatPrediction, CompletionPrediction, Llama
from llamakit.loading import find_tokenizer
from llamakit.protocols import Checkpoint, Tokenizer
from llamakit.sampling import choose_sampling
from llamakit.streaming import Chunk
from llamakit.toolkit import default_toolkit

__all__ = [
    "ChatPrediction",
    "Chunk",
    "CompletionPrediction",
    "Llama",
    "choose_sampling",
    "find_tokenizer",
    "load_tokenizer",
    "open_checkpoint",
]


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a folder as a checkpoint, from its indexes alone.

    Raises:
        CheckpointError: no plugin knows its form, or it is damaged.
    """
    return default_toolkit().open_checkpoint(Path(path))


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load a tokenizer file, or the tokenizer of a model folder.

    Raises:
        TokenizerError: there is none, or it is something else.
    """
    path = Path(path)
    return default_toolkit().load_tokenizer(find_tokenizer(path) if path.is_dir() else path)
