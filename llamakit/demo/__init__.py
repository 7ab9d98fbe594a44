"""The bundled demo model: a small trained checkpoint in Meta's format, in 8 shards."""

from __future__ import annotations

from pathlib import Path

NAME = "llama-demo"


def path() -> Path:
    """Return the folder of the bundled demo model; its tokenizer is in the parent folder."""
    return Path(__file__).parent / NAME
