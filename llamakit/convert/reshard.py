"""Changes the number of shards of a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from llamakit.checkpoint.atomic_folder import atomic_folder
from llamakit.checkpoint.checklist import MODEL_CHECKLIST, read_checklist
from llamakit.convert.conversion_plan import ConversionPlan
from llamakit.convert.execute import ProgressCallback
from llamakit.convert.meta_format import plan_shards
from llamakit.convert.plan_execution import write_folder
from llamakit.protocols import Checkpoint, ToolCommand


def plan_reshard(
    checkpoint: Checkpoint,
    destination: Path,
    size: int,
    *,
    dtype: str | None = None,
    verify: bool = False,
    unserved: Collection[str] = (),
    command: ToolCommand | None = None,
) -> ConversionPlan:
    """Plan to write a checkpoint as ``size`` shards.

    Args:
        checkpoint: what is read; of any format.
        destination: the folder to make.
        size: the model parallel size.
        dtype: what weights are cast to, or None to keep their bytes.
        verify: check the source against its checklist too.
        unserved: names of files that the checklist lists though the server does not have them.
        command: what llamakit.json says was asked for; without it: reshard.

    Raises:
        UnevenSplitError: the model cannot be split into so many shards.
        CheckpointError: the source is not what it should be.
    """
    plan = plan_shards(checkpoint, destination, size, dtype=dtype, command=command)
    return replace(plan, expected=source_checklist(checkpoint, unserved) if verify else {})


def make(
    plan: ConversionPlan,
    *,
    force: bool = False,
    direct: bool | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, object]:
    """Carry out a plan and write its destination atomically.

    Args:
        force: replace a folder that is there.
        direct: past the kernel's cache; None: where the file system allows it and it pays.
        progress: called with how many bytes are done.
    Returns:
        ``source``, ``destination``, and what ``write_folder`` reports.

    Raises:
        CheckpointError: the source is not what it should be.
        DestinationError: there is something already.
        NoSpaceError: there is no room.
    """
    source = plan.checkpoint.path
    with atomic_folder(plan.destination, force=force, source=source) as folder:
        report = write_folder(plan, folder, direct=direct, progress=progress)
    return {"source": str(source), "destination": str(plan.destination), **report}


def source_checklist(checkpoint: Checkpoint, unserved: Collection[str]) -> dict[Path, str]:
    """Return the md5 of each file that a checkpoint's checklist names; warn if there is none.

    Args:
        unserved: names of files that may be missing, because the server does not have them.
    """
    path = checkpoint.path / MODEL_CHECKLIST
    if not path.exists():
        logging.getLogger("llamakit").warning(
            "%s does not exist, so there is nothing to check the source against", path
        )
        return {}
    listed = {checkpoint.path / name: md5 for name, md5 in read_checklist(path).entries.items()}
    return {file: md5 for file, md5 in listed.items() if file.name not in unserved or file.exists()}
