"""Carries out what is asked of a registered exporter, or says what it would write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamakit.checkpoint import provenance_writer
from llamakit.checkpoint.atomic_folder import atomic_folder
from llamakit.checkpoint.capabilities import weight_files
from llamakit.checkpoint.plain_weights import check_plain_weights
from llamakit.checkpoint.provenance import provenance_path
from llamakit.checkpoint.teamwork import current_team
from llamakit.convert.conversion_plan import ConversionPlan
from llamakit.convert.engines import exporter_for, start_command
from llamakit.convert.export import write_plan
from llamakit.convert.plan_summary import PlanSummary
from llamakit.errors import UsageError
from llamakit.files.file_stamp import stamps, unchanged
from llamakit.plugin_manager.contracts.exporters import check_export, check_plan
from llamakit.plugin_manager.failures import guarded
from llamakit.plugin_manager.registry import Entry, Registry
from llamakit.protocols import Checkpoint, Engine, Exporter, ToolCommand


@dataclass(frozen=True)
class ExportRequest:
    """What is asked of which exporter."""

    entry: Entry
    checkpoint: Checkpoint
    options: Mapping[str, Any]
    command: ToolCommand | None = None
    """What llamakit.json says has made it; None: export."""
    engine: Engine | None = None


def request_export(
    checkpoint: Checkpoint,
    form: str,
    engine: str | None,
    options: Mapping[str, Any],
    command: ToolCommand | None,
    *,
    exporters: Registry[Exporter],
    engines: Registry[Engine],
) -> ExportRequest:
    """Find the exporter of a format, or of an engine, and check what it is to read.

    Raises:
        UnknownNameError: no exporter, or no engine, of that name.
        UnsupportedModelError: weights that are no plain numbers.
    """
    chosen: Engine | None = None
    if engine is not None:
        found = engines.entry(engine)
        form, chosen = exporter_for(found, exporters), found.value
        options = {**found.value.get("options", {}), **options}
    entry = exporters.entry(form)
    check_plain_weights(checkpoint)
    return ExportRequest(entry, checkpoint, options, command, chosen)


def plan_export(request: ExportRequest, destination: Path) -> PlanSummary:
    """Say what an export would write and read.

    Raises:
        UsageError: the exporter cannot say that.
        PluginError: what a third-party exporter says is no plan.
    """
    planned = _planned(request, destination)
    if planned is None:
        raise UsageError(
            f"the {request.entry} of the {request.entry.source} cannot say beforehand what it "
            "writes: it has no plan. Leave --plan out."
        )
    if isinstance(planned, ConversionPlan):
        return planned.summary()
    return PlanSummary(
        request.checkpoint.path,
        destination,
        {file["name"]: file["nbytes"] for file in planned["files"]},
        planned["nbytes_read"],
        planned["memory_nbytes"],
        tuple(planned.get("notes", ())),
    )


def _planned(
    request: ExportRequest, destination: Path
) -> ConversionPlan | Mapping[str, Any] | None:
    """Return an exporter's plan; None: it makes none."""
    make = getattr(guarded(request.entry.value, request.entry), "plan", None)
    if not callable(make):
        return None
    planned: Any = make(request.checkpoint, destination, request.options)
    if not isinstance(planned, ConversionPlan):
        check_plan(request.entry, planned)
        mapping: Mapping[str, Any] = planned
        return mapping
    return planned if request.command is None else planned.recorded_as(request.command)


def carry_out(request: ExportRequest, destination: Path, *, force: bool) -> dict[str, Any]:
    """Write a checkpoint in another format, atomically.

    Returns: as ``llamakit.export``.

    Raises:
        PluginError: a third-party exporter failed, wrote nothing or returned no valid report.
        CheckpointError: the source is not what it should be.
        DestinationError: there is something already.
        NoSpaceError: there is no room.
    """
    checkpoint, engine = request.checkpoint, request.engine
    with atomic_folder(destination, force=force, source=checkpoint.path) as product:
        with unchanged(stamps(weight_files(checkpoint))):
            report = _write(request, product)
        if not current_team().leads:
            return {"source": str(checkpoint.path), "destination": str(destination)}
        check_export(request.entry, report, product)
        if product.is_dir() and not provenance_path(product).exists():
            _record(request, product, report)
    if destination.is_file():
        _record(request, destination, report)
    if engine is not None:
        command = start_command(engine, checkpoint, destination, report, request.options)
        report = {**report, "command": command}
    return {"source": str(checkpoint.path), "destination": str(destination), **report}


def _write(request: ExportRequest, product: Path) -> Mapping[str, Any]:
    """Have the exporter write; for another command, or several processes, by its plan.

    What has no plan of that kind is written by the process that leads.
    """
    team = current_team()
    if request.command is not None or team.size > 1:
        planned = _planned(request, product)
        if isinstance(planned, ConversionPlan):
            return write_plan(planned, request.options)
    if not team.leads:
        return {}
    exporter = guarded(request.entry.value, request.entry)
    report: Mapping[str, Any] = exporter(request.checkpoint, product, request.options)
    return report


def _record(request: ExportRequest, product: Path, report: Mapping[str, Any]) -> None:
    """Record what an exporter has read and written that has recorded nothing itself."""
    entry, options = request.entry, request.options
    asked = provenance_writer.recorded_options(
        {name: value for name, value in options.items() if name not in ("progress", "direct")}
    )
    made_by = f"{entry.source.package} {entry.source.version}".strip()
    command = ToolCommand("export", {"format": entry.name, **asked}, made_by)
    if (other := request.command) is not None:
        command = ToolCommand(other.name, {**command.options, **other.options}, other.made_by)
    checksums = provenance_writer.reported_checksums(report)
    provenance_writer.record_provenance(product, command, [request.checkpoint], checksums)
