"""Verifies, describes and compares checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llamakit.errors import UsageError
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.protocols import Checkpoint

if TYPE_CHECKING:
    from llamakit.examine.diff import DiffReport
    from llamakit.examine.inspect import Inspection
    from llamakit.examine.steps import StepProgress
    from llamakit.examine.verify_report import VerifyReport


def verify(
    *paths: str | Path,
    deep: bool = False,
    progress: Callable[[StepProgress], object] | None = None,
) -> VerifyReport:
    """Check files against their checklists; every file that counts is read.

    Args:
        paths: folders of models, folders that hold several, or folders with a tokenizer.
        deep: check what checksums do not show: CRCs, shapes, shards of several models or out of
            order, another model's tokenizer, NaN and infinity.
        progress: called with how far it is: ``nbytes`` of ``total``, which is known when it starts.
    Returns:
        What was found; ``report.good`` is the overall result.

    Raises:
        NotACheckpointError: there is nothing to verify at a path.
    """
    from llamakit.download.catalog import read_catalog, unserved_files
    from llamakit.examine.steps import finish
    from llamakit.examine.verify import verify as run

    toolkit = default_toolkit()
    models = read_catalog(toolkit.models)
    steps = run(
        [Path(path) for path in paths],
        toolkit,
        deep=deep,
        unserved=unserved_files(models),
        catalog={model.folder: model.shard_names for model in models},
    )
    return finish(steps, progress)


def inspect(
    path: str | Path,
    *,
    max_seq_len: int | None = None,
    max_batch_size: int = 1,
    kv_cache: str | None = None,
) -> Inspection:
    """Describe a checkpoint, from its indexes alone.

    Args:
        path: its folder.
        max_seq_len: tokens that ``memory`` counts a KV cache for; None: what the model was made
            for.
        max_batch_size: sequences that ``memory`` counts a KV cache for.
        kv_cache: ``int8`` counts keys and values of 8 bits.

    Raises:
        CheckpointError: it is none, or damaged.
        UsageError: ``kv_cache`` is something else.
    """
    from llamakit.examine.inspect import inspect as run

    if kv_cache not in (None, "int8"):
        raise UsageError(f"kv_cache is {kv_cache!r}: pass 'int8', or None to round nothing")
    return run(
        Path(path),
        default_toolkit(),
        max_seq_len=max_seq_len,
        max_batch_size=max_batch_size,
        kv_cache=kv_cache,
    )


def diff(
    a: str | Path | Checkpoint,
    b: str | Path | Checkpoint,
    *,
    progress: Callable[[StepProgress], object] | None = None,
) -> DiffReport:
    """Compare two checkpoints of any format and any number of shards, parameter by parameter.

    Args:
        a: a folder, or a checkpoint that is open.
        b: another.
        progress: called with how far it is: ``nbytes`` of ``total``.
    Returns:
        What differs, and where; ``report.same`` is the overall result.

    Raises:
        CheckpointError: one is no checkpoint, or damaged, or its ``read`` contradicts its index.
        PluginError: the ``read`` of a third-party plugin's checkpoint fails.
    """
    from llamakit.api.opening import opened
    from llamakit.examine.diff import diff as run
    from llamakit.examine.steps import finish

    return finish(run(opened(a), opened(b)), progress)
