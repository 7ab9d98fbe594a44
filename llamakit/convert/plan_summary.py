"""What a conversion would write and read, whoever has planned it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llamakit.checkpoint.atomic_folder import check_destination, check_space
from llamakit.errors import LlamakitError


@dataclass(frozen=True)
class PlanSummary:
    """What would be written, how much is read, and how much memory that takes."""

    source: Path
    """The checkpoint's folder, or file."""
    destination: Path
    files: Mapping[str, int]
    """The exact size of each file in bytes, by its name."""
    nbytes_read: int
    """How much is read of the weights, in bytes."""
    memory_nbytes: int
    """How much memory the buffers take, in bytes; Python itself needs some 60 MB more."""
    notes: tuple[str, ...] = ()
    """What was decided, a sentence each."""

    @property
    def nbytes(self) -> int:
        """How much is written, in bytes."""
        return sum(self.files.values())

    def refusals(self, *, force: bool = False) -> list[str]:
        """Say why the plan cannot be executed, as things are now."""
        reasons = []
        try:
            check_destination(self.destination, force=force, source=self.source)
        except LlamakitError as error:
            reasons.append(error.for_commands)
        if self.destination.parent.is_dir():
            try:
                check_space(self.destination, self.nbytes)
            except LlamakitError as error:
                reasons.append(error.for_commands)
        return reasons

    def as_json(self, *, force: bool = False) -> dict[str, object]:
        """Describe the plan in JSON's terms."""
        return {
            "source": str(self.source),
            "destination": str(self.destination),
            "files": [{"name": name, "nbytes": nbytes} for name, nbytes in self.files.items()],
            "nbytes": self.nbytes,
            "nbytes_read": self.nbytes_read,
            "memory_nbytes": self.memory_nbytes,
            "refusals": self.refusals(force=force),
            **({"notes": list(self.notes)} if self.notes else {}),
        }
