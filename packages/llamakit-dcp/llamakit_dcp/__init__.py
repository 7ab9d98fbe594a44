"""Open torch's distributed checkpoints (DCP), and write them, without a process group.

This module is imported at every start of llamakit, so it imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llamakit.convert.conversion_plan import ConversionPlan
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Checkpoint, Exporter

__version__ = "0.1"


@hookimpl
def open_checkpoint(path: Path) -> Checkpoint | None:
    """Open a distributed checkpoint of torch: .metadata and __0_0.distcp (1, 2 …)."""
    from llamakit_dcp.reader import open_dcp

    return open_dcp(path)


class DCPExporter:
    """Write a folder that ``torch.distributed.checkpoint.load`` reads.

    Options:
        shards: how many files, one a rank; else as many as the source has shards.
        names: torchtitan (Meta's) or huggingface.
        prefix: before each name, such as model.; else none.
    """

    def __call__(
        self, checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Write ``checkpoint`` to the folder ``destination``; report what was done."""
        from llamakit.convert.export import write_plan

        return write_plan(self.plan(checkpoint, destination, options), options)

    def plan(
        self, checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
    ) -> ConversionPlan:
        """Say what would be written."""
        from llamakit_dcp.writer import plan_export

        return plan_export(checkpoint, destination, options)


@hookimpl
def register_exporters(exporters: Registrar[Exporter]) -> None:
    """Offer ``dcp``."""
    exporters.register(
        "dcp", DCPExporter(), help="torch's distributed checkpoint, for torchtitan and FSDP2"
    )
