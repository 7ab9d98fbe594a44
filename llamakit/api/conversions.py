"""Writes checkpoints in Meta's format: other shards, other weights, fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llamakit.api.opening import opened
from llamakit.convert.edits import Edits
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.protocols import Checkpoint, ToolCommand

if TYPE_CHECKING:
    from llamakit.convert.conversion_plan import ConversionPlan


def plan_reshard(
    source: str | Path | Checkpoint,
    destination: str | Path,
    model_parallel_size: int,
    *,
    dtype: str | None = None,
    verify: bool = False,
    command: ToolCommand | None = None,
) -> ConversionPlan:
    """Plan what ``reshard`` would do, without doing it.

    Args and Raises: as ``reshard``.
    """
    from llamakit.convert.reshard import plan_reshard as run
    from llamakit.download.catalog import read_catalog, unserved_files

    return run(
        opened(source),
        Path(destination),
        model_parallel_size,
        dtype=dtype,
        verify=verify,
        unserved=unserved_files(read_catalog(default_toolkit().models)) if verify else (),
        command=command,
    )


def reshard(
    source: str | Path | Checkpoint,
    destination: str | Path,
    model_parallel_size: int,
    *,
    dtype: str | None = None,
    verify: bool = False,
    force: bool = False,
    direct: bool | None = None,
    progress: Callable[[int], None] | None = None,
    command: ToolCommand | None = None,
) -> dict[str, object]:
    """Write a checkpoint with another number of shards, in Meta's format.

    Args:
        source: a folder, or an open checkpoint, also one of your own class.
        destination: the folder to make; it is written atomically.
        model_parallel_size: how many shards.
        dtype: ``float32``, ``bfloat16`` or ``float16``; None keeps every byte.
        verify: check the source against its checklist.chk first, or on the way.
        force: replace a folder that is there.
        direct: bypass the page cache; None: if the file system allows it and it pays.
        progress: called with the number of bytes done since the last call.
        command: what ``llamakit.json`` says has made it, of a tool of your own; None: reshard.
    Returns:
        ``source``, ``destination``, ``files`` (name, nbytes, md5), ``nbytes``, ``nbytes_read``.

    Raises:
        UnevenSplitError: the model cannot be split into so many shards.
        CheckpointError: the source is not what it should be.
        DestinationError: there is something already.
        NoSpaceError: there is no room.
    """
    from llamakit.convert.reshard import make

    plan = plan_reshard(
        source, destination, model_parallel_size, dtype=dtype, verify=verify, command=command
    )
    return make(plan, force=force, direct=direct, progress=progress)


def plan_edit(
    source: str | Path | Checkpoint,
    destination: str | Path,
    edits: Edits,
    model_parallel_size: int | None = None,
    *,
    verify: bool = False,
) -> ConversionPlan:
    """Plan what ``edit`` would do, without doing it.

    Args and Raises: as ``edit``.
    """
    from llamakit.convert.edit import plan_edit as run
    from llamakit.download.catalog import read_catalog, unserved_files
    from llamakit.examine.vocabulary import find_vocabulary

    toolkit, checkpoint = default_toolkit(), opened(source)
    return run(
        checkpoint,
        Path(destination),
        edits,
        model_parallel_size,
        tokens=find_vocabulary(checkpoint, toolkit).size if edits.resizes else None,
        verify=verify,
        unserved=unserved_files(read_catalog(toolkit.models)) if verify else (),
    )


def edit(
    source: str | Path | Checkpoint,
    destination: str | Path,
    edits: Edits,
    model_parallel_size: int | None = None,
    *,
    verify: bool = False,
    force: bool = False,
    direct: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, object]:
    """Write a checkpoint with other dtypes, names, layers or another vocabulary.

    Args:
        edits: what is to change.
        model_parallel_size: how many shards; None: as many as the source has.

    Other Args, Returns and Raises: as ``reshard``, ``notes`` (what was decided) besides, and
        OptionError: a pattern matches nothing, two names would be one, or a vocabulary does not
            divide or is smaller than the tokenizer's.
        ParametersError: what is left is no complete model, and ``edits.partial`` is off.
    """
    from llamakit.convert.reshard import make

    plan = plan_edit(source, destination, edits, model_parallel_size, verify=verify)
    return make(plan, force=force, direct=direct, progress=progress)


def plan_quantize(
    source: str | Path | Checkpoint, destination: str | Path, bits: str
) -> ConversionPlan:
    """Plan what ``quantize`` would do, without doing it.

    Args and Raises: as ``quantize``.
    """
    from llamakit.convert.quantize import plan_quantize as plan

    return plan(opened(source), Path(destination), bits)


def quantize(
    source: str | Path | Checkpoint,
    destination: str | Path,
    bits: str,
    *,
    force: bool = False,
    direct: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, object]:
    """Write what ``Llama.open(source, quantize=bits)`` would compute with, for any number of ranks.

    Args:
        source: a folder, or an open checkpoint, also one of your own class.
        destination: the folder to make; it is written atomically.
        bits: ``int8`` or ``int4``.
        force, direct, progress: as ``reshard``.
    Returns: as ``reshard``.

    Raises:
        UsageError: no such ``bits``.
        UnsupportedModelError: it is stored quantized already, has NaN, or is of Llama 4.
        CheckpointError: the source is not what it should be.
        DestinationError: there is something already.
        NoSpaceError: there is no room.
    """
    from llamakit.convert.reshard import make

    plan = plan_quantize(source, destination, bits)
    return make(plan, force=force, direct=direct, progress=progress)


def record_provenance(
    product: str | Path,
    command: ToolCommand,
    sources: Sequence[str | Path | Checkpoint],
    *,
    checksums: Mapping[str, str] | None = None,
) -> None:
    """Write the ``llamakit.json`` of what a tool of your own has written.

    Nothing has to be done for an exporter, nor for what ``reshard`` writes: they have theirs.

    Args:
        product: the folder, before it is renamed into place, or the only file that was written.
        command: what made it.
        sources: the checkpoints that it was made from; their histories are taken over.
        checksums: MD5 or SHA-256 of files of the product, by their names, as they were computed
            when they were written. Without one, a file of up to 32 MB is read again, and of a
            larger one none is recorded.

    Raises:
        CheckpointError: a source is none.
    """
    from llamakit.checkpoint.provenance_writer import record_provenance as run

    run(Path(product), command, [opened(source) for source in sources], checksums)
