"""Export to a folder that transformers loads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llamakit.convert.conversion_plan import ConversionPlan
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Checkpoint, Exporter


class HuggingFaceExporter:
    """Write a Hugging Face folder: config, tokenizer and weights.

    Options:
        max_shard_size: the largest file, such as 5GB.
        tokenizer: its file; without it the one in the source or next to it.
        instruct: true or false, whether the model was trained on dialogs; without it, that is
            decided by what is in the source, or by its folder's name.
        quantize: int8 or int8-weight-only rounds the weights, in the layout of
            compressed-tensors.
    """

    def __call__(
        self, checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Write ``checkpoint`` to the folder ``destination``; report what was done."""
        from llamakit.convert.export import export_hf

        return export_hf(checkpoint, destination, options)

    def plan(
        self, checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
    ) -> ConversionPlan:
        """Say what would be written."""
        from llamakit.convert.export import plan_hf

        return plan_hf(checkpoint, destination, options)


@hookimpl
def register_exporters(exporters: Registrar[Exporter]) -> None:
    """Offer ``hf``."""
    exporters.register("hf", HuggingFaceExporter(), help="a Hugging Face folder")
