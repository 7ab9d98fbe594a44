"""What reshard, export and import share: how many bytes are converted, the plan, the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import click

from llamakit.checkpoint.dtypes import itemsize
from llamakit.cli.terminal import json_text
from llamakit.protocols import Checkpoint

if TYPE_CHECKING:
    from llamakit.convert.conversion_plan import ConversionPlan
    from llamakit.convert.plan_summary import PlanSummary


def describe_report(report: Mapping[str, Any], *, as_json: bool) -> str:
    """Describe what was written: as JSON, or a line for each file and one for the folder."""
    if as_json:
        return json_text(report, indent=2)
    files = report.get("files", ())
    lines = [
        f"{file['nbytes']:>15,}  {file['name']}" for file in (files if _lists_files(files) else ())
    ]
    lines += [note for note in report.get("notes", ()) if isinstance(note, str)]
    lines.append(f"wrote {report['destination']}")
    if isinstance(command := report.get("command"), str):
        lines.append(f"start it with: {command}")
    return "\n".join(lines)


def _lists_files(files: Any) -> bool:
    """Tell whether the report's ``files`` are files; a plugin's exporter may return anything."""
    return isinstance(files, list | tuple) and all(
        isinstance(file, Mapping)
        and isinstance(file.get("name"), str)
        and isinstance(file.get("nbytes"), int)
        for file in files
    )


def describe_plan(plan: Mapping[str, Any], *, as_json: bool) -> str:
    """Describe what would be written: as JSON, or as lines of text."""
    if as_json:
        return json_text(plan, indent=2)
    lines = [f"{file['nbytes']:>15,}  {file['name']}" for file in plan["files"]]
    lines += [
        f"{plan['nbytes']:>15,}  bytes to write to {plan['destination']}",
        f"{plan['nbytes_read']:>15,}  bytes to read from {plan['source']}",
        f"{plan['memory_nbytes']:>15,}  bytes of memory for buffers, and some 60 MB for Python",
    ]
    lines += plan.get("notes", ())
    lines += [f"refused: {reason}" for reason in plan["refusals"]]
    return "\n".join(lines)


def print_plan(plan: ConversionPlan | PlanSummary, *, force: bool, as_json: bool) -> NoReturn:
    """Print what would be written, and end the command: with 1 if that would be refused."""
    described = plan.as_json(force=force)
    click.echo(describe_plan(described, as_json=as_json))
    raise click.exceptions.Exit(1 if described["refusals"] else 0)


def weights_nbytes(checkpoint: Checkpoint) -> int:
    """Return how many bytes the parameters of a checkpoint take."""
    parameters = checkpoint.parameters.values()
    return sum(parameter.numel * itemsize(parameter.dtype) for parameter in parameters)
