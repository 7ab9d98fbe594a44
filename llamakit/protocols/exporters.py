"""What writes checkpoints in other formats, and the programs that run what is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

if TYPE_CHECKING:
    from pathlib import Path

    from llamakit.protocols.checkpoints import Checkpoint

__all__ = [
    "Engine",
    "Exporter",
    "ExporterCapabilities",
]


class Exporter(Protocol):
    """Writes a checkpoint in another format."""

    def __call__(
        self, checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any], /
    ) -> Mapping[str, Any]:
        """Write ``checkpoint`` to ``destination``, which does not exist; report what was done."""
        ...


class ExporterCapabilities(Exporter, Protocol):
    """What an exporter may offer besides, as a method, or as an attribute of a function."""

    def plan(
        self, checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any], /
    ) -> object:
        """Say what would be written, for ``--plan``, and write nothing.

        Without it, ``--plan`` is refused.

        Returns:
            A mapping: ``files``, all that will be written, a list of mappings with ``name`` and
            ``nbytes``, the exact size; ``nbytes_read``, of weights; ``memory_nbytes``, of buffers;
            perhaps ``notes``, a sentence each. Or a ``ConversionPlan`` of llamakit's: where another
            tool exports and is to be named in ``llamakit.json``, that plan is carried out instead
            of a call of the exporter.

        Raises: what is wrong with the checkpoint or the options, as the exporter does.
        """
        ...


class Engine(TypedDict, total=False):
    """A program that runs models, for ``export --for``. ``exporter`` and ``command`` are needed."""

    exporter: str
    """The registered name of the exporter that writes what it starts from, such as ``hf``."""
    options: Mapping[str, str]
    """The exporter's options; those that the user gives go before them."""
    command: str
    """What starts it, in a shell, where ``{folder}`` is what was written, ``{path}`` the same from
    the root on, ``{file}`` its first file, and ``{dtype}`` that of the matrices."""
    package: str
    """The package that brings the exporter, to name where it is not installed."""
