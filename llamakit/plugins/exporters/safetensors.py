"""Export to .safetensors with Meta's names, a file for each shard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llamakit.convert.conversion_plan import ConversionPlan
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Checkpoint, Exporter


class SafetensorsExporter:
    """Write Meta's parameters as .safetensors. It has no options of its own."""

    def __call__(
        self, checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Write ``checkpoint`` to the folder ``destination``; report what was done."""
        from llamakit.convert.export import export_safetensors

        return export_safetensors(checkpoint, destination, options)

    def plan(
        self, checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
    ) -> ConversionPlan:
        """Say what would be written."""
        from llamakit.convert.export import plan_safetensors

        return plan_safetensors(checkpoint, destination, options)


@hookimpl
def register_exporters(exporters: Registrar[Exporter]) -> None:
    """Offer ``safetensors``."""
    exporters.register(
        "safetensors", SafetensorsExporter(), help="Meta's names, a .safetensors for each shard"
    )
