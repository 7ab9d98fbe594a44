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


def check_export(entry: Entry, report: Any, destination: Path) -> None:
    """Check what a third-party exporter returned and wrote; built-ins are tested.

    Args:
        report, destination: as ``export_fault`` takes them.
    Raises:
        PluginError: it breaks the contract; the sentence names the plugin.
    """
    if not entry.source.builtin and (fault := export_fault(report, destination)):
        raise entry.breach(fault)
