"""The embedded checkpoint: a small trained model in Meta's layout, cut 8 ways."""

from __future__ import annotations

from pathlib import Path

NAME = "llama-demo"


def path() -> Path:
    """Return the folder of the embedded checkpoint; its tokenizer is in the parent."""
    return Path(__file__).parent / NAME
