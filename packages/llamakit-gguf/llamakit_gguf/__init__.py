"""GGUF, the format that llama.cpp and its relatives run: opened, and exported to.

This module is imported at every start of llamakit, so it imports nothing: the work is in modules
that come in when a GGUF file is read or written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llamakit import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Checkpoint, Exporter, Tokenizer

_MAGIC = b"GGUF"


@hookimpl
def open_checkpoint(path: Path) -> Checkpoint | None:
    """Open a GGUF file of a Llama: model.gguf, or model-00001-of-0000N.gguf."""
    if not _is_gguf(path):
        return None
    from llamakit_gguf.checkpoint import open_gguf

    return open_gguf(path)


@hookimpl
def load_tokenizer(path: Path) -> Tokenizer | None:
    """Load the tokenizer that is in a GGUF file of a Llama."""
    if not _is_gguf(path):
        return None
    from llamakit_gguf.checkpoint import load_tokenizer

    return load_tokenizer(path)


class GGUFExporter:
    """Write a folder with one GGUF file in it.

    Options:
        outtype: f32, f16, bf16, q8_0 or q4_0, else the checkpoint's own.
        tokenizer: its file, else the one in the checkpoint's folder or next to it.
    """

    def __call__(
        self, checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Write ``checkpoint`` to the folder ``destination``; report what was done."""
        from llamakit_gguf.export import export

        return export(checkpoint, destination, options)

    def plan(
        self,
        checkpoint: Checkpoint,
        destination: Path,  # noqa: ARG002 - of the contract
        options: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """Say what would be written."""
        from llamakit_gguf.plan import plan_export

        return plan_export(checkpoint, options)


@hookimpl
def register_exporters(exporters: Registrar[Exporter]) -> None:
    """Offer ``gguf``."""
    exporters.register("gguf", GGUFExporter(), help="one GGUF file, for llama.cpp")


def _is_gguf(path: Path) -> bool:
    """Tell whether a path is a file that begins as a GGUF does."""
    if not path.is_file():
        return False
    from llamakit.files.regular_file import open_regular

    try:
        with open_regular(path) as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:  # whoever else is asked says why
        return False
