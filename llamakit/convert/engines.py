"""Engines to export for: which exporter writes what one starts from, and what starts it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamakit.convert.hf_files import matrix_dtype
from llamakit.errors import OptionError
from llamakit.plugin_manager.contracts.engines import engine_fault
from llamakit.plugin_manager.registry import Entry, Registry
from llamakit.protocols import Checkpoint, Engine, Exporter


def exporter_for(entry: Entry, exporters: Registry[Exporter]) -> str:
    """Name the exporter that writes what an engine starts from.

    Raises:
        PluginError: the engine breaks its contract.
        OptionError: its exporter is not installed.
    """
    if fault := engine_fault(entry.value):
        raise entry.breach(fault)
    engine: Engine = entry.value
    if engine["exporter"] not in (known.name for known in exporters):
        package = engine.get("package")
        advice = f"install {package}, then do this again" if package else "install its package"
        raise OptionError(
            f"{entry.name} starts from the format {engine['exporter']}, and no exporter of that "
            f"name is registered; {advice} (docs/how-to/packages.md)"
        )
    return engine["exporter"]


def start_command(
    engine: Engine,
    checkpoint: Checkpoint,
    folder: Path,
    report: Mapping[str, Any],
    options: Mapping[str, Any],
) -> str:
    """Say what starts an engine with what was written, for a shell.

    Args:
        engine: that was exported for.
        checkpoint: that was read.
        folder: what was written.
        report: the exporter's, of which ``{file}`` is the first file.
        options: the exporter's. Where it has quantized, ``{dtype}`` is bfloat16: vLLM 0.32's 8 bits
            stop at the first prompt in float16 and float32 on a CPU with AMX.
    """
    command: str = engine["command"].format(
        folder=shlex.quote(str(folder)),
        path=shlex.quote(str(folder.absolute())),
        file=shlex.quote(str(_first_file(folder, report))),
        dtype="bfloat16" if options.get("quantize") else matrix_dtype(checkpoint),
    )
    return command


def _first_file(folder: Path, report: Mapping[str, Any]) -> Path:
    """Return the path of the first file that a report names; a plugin's may name none."""
    match report.get("files"):
        case [{"name": str(name)}, *_]:
            return folder / name
    return folder
