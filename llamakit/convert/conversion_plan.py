"""A conversion, worked out before anything is written."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from llamakit.checkpoint.capabilities import stored_as, weight_files
from llamakit.checkpoint.checklist import MODEL_CHECKLIST, format_checklist
from llamakit.checkpoint.provenance import PROVENANCE
from llamakit.convert.conversion_record import ConversionRecord
from llamakit.convert.execute import memory_nbytes
from llamakit.convert.moves import Move, WeightFile, nbytes_read
from llamakit.convert.plan_summary import PlanSummary
from llamakit.files.file_stamp import Stamp, stamps
from llamakit.files.regular_file import read_bytes
from llamakit.protocols import Checkpoint, ToolCommand


@dataclass(frozen=True)
class SmallFile:
    """A file next to the weights."""

    name: str
    content: bytes | Path
    """What it holds, or the file that it is a copy of."""

    @property
    def nbytes(self) -> int:
        """Its exact size."""
        if isinstance(self.content, bytes):
            return len(self.content)
        return self.content.stat().st_size

    def read_if_in(self, folder: Path) -> SmallFile:
        """Return the file with its content in memory, if it is a copy of one in ``folder``."""
        if isinstance(self.content, bytes) or self.content.parent != folder:
            return self
        return SmallFile(self.name, read_bytes(self.content))


@dataclass(frozen=True)
class ConversionPlan:
    """What is read, what is written, and how much of everything it takes."""

    checkpoint: Checkpoint = field(repr=False)
    destination: Path
    moves: tuple[Move, ...] = field(repr=False)
    weights: tuple[WeightFile, ...] = field(repr=False)
    small_files: tuple[SmallFile, ...] = field(repr=False)
    sources: Mapping[Path, Stamp] = field(repr=False)
    """The files that are read, as they were when the plan was made."""
    has_checklist: bool
    """Whether a checklist.chk of all the other files is written, last."""
    record: ConversionRecord = field(repr=False)
    """What llamakit.json says of the source and the command."""
    expected: Mapping[Path, str] = field(default_factory=dict, repr=False)
    """What the checklist of the source says of its files, if they are to be compared with it."""
    notes: tuple[str, ...] = ()
    """What was decided, a sentence each."""

    @property
    def files(self) -> dict[str, int]:
        """The exact size of each file in bytes, by its name."""
        sizes = {file.name: file.nbytes for file in self.weights}
        sizes |= {file.name: file.nbytes for file in self.small_files}
        sizes[PROVENANCE] = self._record_nbytes(sizes)
        if self.has_checklist:
            sizes[MODEL_CHECKLIST] = len(format_checklist(dict.fromkeys(sizes, "0" * 32)).encode())
        return sizes

    def _record_nbytes(self, sizes: Mapping[str, int]) -> int:
        written = {name: (nbytes, "0" * 32) for name, nbytes in sizes.items()}
        computed = {**dict.fromkeys(self.record.hashed, "0" * 32), **self.expected}
        return len(self.record.content(written, computed))

    @property
    def nbytes(self) -> int:
        """How much is written, in bytes."""
        return sum(self.files.values())

    @property
    def nbytes_read(self) -> int:
        """How much is read of the weights, in bytes."""
        return nbytes_read(self.moves)

    @property
    def memory_nbytes(self) -> int:
        """How much memory the buffers take, in bytes; Python itself needs some 60 MB more."""
        return memory_nbytes(self.moves)

    def summary(self) -> PlanSummary:
        """Return what ``--plan`` shows."""
        return PlanSummary(
            self.checkpoint.path,
            self.destination,
            self.files,
            self.nbytes_read,
            self.memory_nbytes,
            self.notes,
        )

    def refusals(self, *, force: bool = False) -> list[str]:
        """Say why the plan cannot be executed, as things are now."""
        return self.summary().refusals(force=force)

    def as_json(self, *, force: bool = False) -> dict[str, object]:
        """Describe the plan in JSON's terms."""
        return self.summary().as_json(force=force)

    def recorded_as(self, command: ToolCommand) -> ConversionPlan:
        """Return the plan with another command in its llamakit.json; what was asked for stays."""
        options = {**self.record.command.options, **command.options}
        record = replace(self.record, command=replace(command, options=options))
        return replace(self, record=record)


def warn_if_multiplied_out(checkpoint: Checkpoint) -> None:
    """Say that what is stored quantized is written multiplied out."""
    if stored := stored_as(checkpoint):
        logging.getLogger("llamakit").warning(
            "%s: %s; their values are written multiplied out", checkpoint.path, stored
        )


def source_stamps(
    checkpoint: Checkpoint, moves: Sequence[Move], small_files: Sequence[SmallFile]
) -> dict[Path, Stamp]:
    """Take the stamps of all files that a conversion reads."""
    regions = {region.path for move in moves for region in move.regions if region.path is not None}
    return stamps([*weight_files(checkpoint), *regions, *copied_files(small_files)])


def copied_files(small_files: Sequence[SmallFile]) -> list[Path]:
    """Return what is copied as it is."""
    return [file.content for file in small_files if isinstance(file.content, Path)]
