"""Brings a checkpoint of another format into Meta's."""

from __future__ import annotations

from pathlib import Path

from llamakit.convert.carry import Progress
from llamakit.convert.meta_form import plan_shards
from llamakit.convert.reshard import make
from llamakit.protocols import Checkpoint


def import_checkpoint(
    checkpoint: Checkpoint,
    destination: Path,
    size: int,
    *,
    dtype: str | None = None,
    force: bool = False,
    direct: bool | None = None,
    progress: Progress | None = None,
) -> dict[str, object]:
    """Write a checkpoint as ``size`` shards in Meta's format.

    Args: as ``reshard``.
    Returns: as ``reshard``.

    Raises:
        UnevenSplitError: the model cannot be cut into so many shards.
        UnsupportedModelError: Meta's format cannot hold this model.
        CheckpointError: the source is not what it should be.
        DestinationError: there is something already.
        NoSpaceError: there is no room.
    """
    plan = plan_shards(checkpoint, destination, size, dtype=dtype)
    return make(plan, force=force, direct=direct, progress=progress)
