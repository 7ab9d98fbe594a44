"""Exports to other formats, and imports from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit.api.conversions import plan_reshard
from llamakit.api.opening import open_for_import, opened
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.protocols import Checkpoint, ToolCommand

if TYPE_CHECKING:
    from llamakit.convert.conversion_plan import ConversionPlan
    from llamakit.convert.plan_summary import PlanSummary
    from llamakit.convert.registered_export import ExportRequest


def export(
    source: str | Path | Checkpoint,
    destination: str | Path,
    form: str = "hf",
    *,
    engine: str | None = None,
    force: bool = False,
    command: ToolCommand | None = None,
    **options: Any,
) -> Mapping[str, Any]:
    """Write a checkpoint in another format.

    Args:
        source: a folder, or an open checkpoint, also one of your own class.
        destination: the folder to make; it is written atomically.
        form: the name of an exporter: ``hf``, ``safetensors`` or a plugin's.
        engine: what it is for, such as ``vllm``: says ``form`` and options itself.
        force: replace a folder that is there.
        command: what ``llamakit.json`` says has made it, of a tool of your own; None: export.
        options: the exporter's own, such as ``max_shard_size="5GB"`` for ``hf``.
    Returns:
        ``source``, ``destination``, and what the exporter reports; for an engine ``command``, the
        line for a shell that starts it.

    Raises:
        UnknownNameError: no exporter, or no engine, of that name.
        OptionError: an option that the exporter does not have.
        UnsupportedModelError: weights that are no plain numbers, or that the format cannot hold.
        PluginError: a third-party exporter failed, wrote nothing or returned no valid report.
        CheckpointError: the source is not what it should be.
        DestinationError: there is something already.
        NoSpaceError: there is no room.
    """
    from llamakit.convert.registered_export import carry_out

    request = _export_request(source, form, engine, options, command)
    return carry_out(request, Path(destination), force=force)


def plan_export(
    source: str | Path | Checkpoint,
    destination: str | Path,
    form: str = "hf",
    *,
    engine: str | None = None,
    command: ToolCommand | None = None,
    **options: Any,
) -> PlanSummary:
    """Say what ``export`` would do, without doing it.

    Args and Raises: as ``export``, and
        UsageError: the exporter has no plan; third-party exporters need none.
    """
    from llamakit.convert.registered_export import plan_export as plan

    return plan(_export_request(source, form, engine, options, command), Path(destination))


def _export_request(
    source: str | Path | Checkpoint,
    form: str,
    engine: str | None,
    options: Mapping[str, Any],
    command: ToolCommand | None,
) -> ExportRequest:
    from llamakit.convert.registered_export import request_export

    return request_export(
        opened(source),
        form,
        engine,
        options,
        command,
        exporters=default_toolkit().exporters,
        engines=default_toolkit().engines,
    )


def plan_import(
    source: str | Path | Checkpoint,
    destination: str | Path,
    model_parallel_size: int = 1,
    *,
    key: str | None = None,
    strip_prefix: str | bool = False,
    dtype: str | None = None,
) -> ConversionPlan:
    """Plan what ``import_checkpoint`` would do, without doing it.

    Args and Raises: as ``import_checkpoint``.
    """
    if isinstance(source, str | Path):
        source = open_for_import(source, key=key, strip_prefix=strip_prefix)
    options = {"model_parallel_size": model_parallel_size, "dtype": dtype, "key": key}
    options["strip_prefix"] = strip_prefix or None
    command = ToolCommand("import", options)
    return plan_reshard(source, destination, model_parallel_size, dtype=dtype, command=command)


def import_checkpoint(
    source: str | Path | Checkpoint,
    destination: str | Path,
    model_parallel_size: int = 1,
    *,
    key: str | None = None,
    strip_prefix: str | bool = False,
    dtype: str | None = None,
    force: bool = False,
    direct: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, object]:
    """Write a checkpoint of another format, such as a Hugging Face folder, as Meta's shards.

    Args:
        source: as ``open_for_import``, or an open checkpoint.
        key, strip_prefix: as ``open_for_import``; of an open checkpoint they are recorded only.

    Other Args, Returns and Raises: as ``reshard``, and
        UnsupportedModelError: Meta's format cannot hold this model.
    """
    from llamakit.convert.reshard import make

    plan = plan_import(
        source, destination, model_parallel_size, key=key, strip_prefix=strip_prefix, dtype=dtype
    )
    return make(plan, force=force, direct=direct, progress=progress)
