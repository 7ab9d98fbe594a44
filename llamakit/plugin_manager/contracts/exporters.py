"""The contract of exporters."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamakit.plugin_manager.registry import Entry


def export_fault(report: Any, destination: Path) -> str:
    """Say what is wrong with an export, or nothing.

    Args:
        report: what the exporter returned; ``export --json`` prints it.
        destination: where it was called to write.
    """
    if not isinstance(report, Mapping):
        return (
            f"returned {type(report).__name__}; expected a mapping that reports what was done, "
            "such as {'files': […], 'nbytes': …}"
        )
    try:
        json.dumps({**report})
    except (TypeError, ValueError, RecursionError) as error:
        return f"returned a report that is no JSON ({error}); expected strings, numbers and lists"
    return "" if os.path.lexists(destination) else "wrote nothing at its destination"


def plan_fault(plan: Any) -> str:
    """Say what is wrong with what an exporter plans, or nothing.

    Args:
        plan: what its ``plan`` returned, if that is no ``ConversionPlan``.
    """
    if not isinstance(plan, Mapping):
        return f"plans {type(plan).__name__}; expected a mapping with files, such as --plan prints"
    files, notes = plan.get("files"), plan.get("notes", ())
    if not isinstance(files, list | tuple) or not all(map(_is_file, files)):
        return "plans no list of files; expected mappings with name and nbytes"
    for key in ("nbytes_read", "memory_nbytes"):
        if not _is_count(plan.get(key)):
            return f"plans no {key}; expected a number of bytes"
    if not isinstance(notes, list | tuple) or not all(isinstance(note, str) for note in notes):
        return "plans notes that are no list of sentences"
    return ""


def _is_file(file: Any) -> bool:
    return (
        isinstance(file, Mapping)
        and isinstance(file.get("name"), str)
        and _is_count(file.get("nbytes"))
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def check_plan(entry: Entry, plan: Any) -> None:
    """Check what a third-party exporter plans.

    Args:
        plan: as ``plan_fault`` takes it.
    Raises:
        PluginError: it breaks the contract; the sentence names the plugin.
    """
    if not entry.source.builtin and (fault := plan_fault(plan)):
        raise entry.breach(fault)


def check_export(entry: Entry, report: Any, destination: Path) -> None:
    """Check what a third-party exporter returned and wrote; built-ins are tested.

    Args:
        report, destination: as ``export_fault`` takes them.
    Raises:
        PluginError: it breaks the contract; the sentence names the plugin.
    """
    if not entry.source.builtin and (fault := export_fault(report, destination)):
        raise entry.breach(fault)
