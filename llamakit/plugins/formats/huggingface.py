"""Open folders in Hugging Face's format: config.json and .safetensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from llamakit.protocols import Checkpoint


@hookimpl
def open_checkpoint(path: Path) -> Checkpoint | None:
    """Open Hugging Face's format: model.safetensors or its index next to config.json."""
    from llamakit.checkpoint.hf_checkpoint import open_huggingface

    return open_huggingface(path)
