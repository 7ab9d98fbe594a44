"""What the llamakit.json next to converted weights says, as far as a plan knows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llamakit.checkpoint.provenance import RecordedFile, format_steps
from llamakit.checkpoint.provenance_sources import ReadSource, read_sources, steps_of
from llamakit.convert.moves import Move
from llamakit.convert.source_checksums import read_nearly_whole
from llamakit.protocols import Checkpoint, ToolCommand


@dataclass(frozen=True)
class ConversionRecord:
    """The command, what it reads, and which checksums it computes on the way."""

    command: ToolCommand
    sources: tuple[ReadSource, ...]
    hashed: frozenset[Path]
    """Files of weights whose MD5 nobody knows, and that are read in order anyway."""
    model: Mapping[str, object] = field(default_factory=dict)
    """What no file of the result says, such as ``embedding_axis``."""

    def content(
        self, written: Mapping[str, tuple[int, str | None]], computed: Mapping[Path, str]
    ) -> bytes:
        """Return the content of llamakit.json.

        Args:
            written: size and MD5 of each file that was written, by its name.
            computed: checksums of files of the sources.
        """
        files = [RecordedFile(name, *known) for name, known in written.items()]
        return format_steps(
            steps_of(self.command, self.sources, files, computed=computed, model=self.model)
        )


def plan_record(
    checkpoint: Checkpoint,
    command: ToolCommand,
    moves: Sequence[Move],
    copied: Iterable[Path],
    model: Mapping[str, object] | None = None,
) -> ConversionRecord:
    """Plan what is recorded of a conversion.

    Args:
        checkpoint: what is read.
        command: what the user asked for.
        moves: what is read of it, and in which order.
        copied: the small files that are copied as they are.
        model: as ``ConversionRecord``.
    """
    sources = tuple(read_sources(checkpoint, copied))
    unknown = {path for source in sources for path in source.unknown}
    hashed = frozenset(unknown & read_nearly_whole(moves) if unknown else ())
    return ConversionRecord(command, sources, hashed, model or {})
