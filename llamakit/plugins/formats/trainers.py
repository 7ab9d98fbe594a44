"""Open folders that trainers have saved with names of their own: torchtune and fairseq2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from llamakit.protocols import Checkpoint


@hookimpl
def open_checkpoint(path: Path) -> Checkpoint | None:
    """Open what torchtune or fairseq2 saved: .pt, .bin or pp_00/ next to params.json."""
    from llamakit.checkpoint.trainer_folders import open_trainer_folder

    return open_trainer_folder(path)
