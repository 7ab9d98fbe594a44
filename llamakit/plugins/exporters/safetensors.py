"""Export to .safetensors with Meta's names, a file for each shard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Checkpoint, Exporter


def export_safetensors(
    checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Write Meta's parameters as .safetensors.

    Args:
        checkpoint: what is read.
        destination: the folder to make.
        options: none of its own.
    """
    from llamakit.convert.export import export_safetensors as run

    return run(checkpoint, destination, options)


@hookimpl
def register_exporters(exporters: Registrar[Exporter]) -> None:
    """Offer ``safetensors``."""
    exporters.register(
        "safetensors", export_safetensors, help="Meta's names, a .safetensors for each shard"
    )
