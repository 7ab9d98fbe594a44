"""Open folders in Meta's format: consolidated.NN.pth and params.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from llamakit.protocols import Checkpoint


@hookimpl
def open_checkpoint(path: Path) -> Checkpoint | None:
    """Open Meta's format: consolidated.00.pth (01, 02 …) next to params.json."""
    from llamakit.checkpoint.meta_checkpoint import open_meta

    return open_meta(path)
