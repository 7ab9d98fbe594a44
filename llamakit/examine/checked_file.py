"""One file that ``verify`` reads: what looks at its bytes, and the faults that they show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit.checkpoint.hashing import Checksum, Consumer
from llamakit.errors import CheckpointError, DamagedFileError

if TYPE_CHECKING:
    from llamakit.examine.contents import MemberCrcs, NonFiniteCounts


class CheckedFile:
    """One file that is read, and what looks at it.

    Args:
        deep: look for what checksums do not show.
    """

    def __init__(self, path: Path, *, deep: bool) -> None:
        self.path = path
        self.nbytes = path.stat().st_size
        self.checksums: dict[str, Checksum] = {}
        """By kind: lists of several folders may have another each."""
        self.crcs: MemberCrcs | None = None
        self.non_finite: NonFiniteCounts | None = None
        self.error: OSError | DamagedFileError | None = None
        self._taken_over: dict[str, str] | None = None
        self.faults: list[str] = []
        if deep:
            from llamakit.examine.tensor_contents import look_inside

            self.crcs, self.non_finite = look_inside(path, self.faults)

    @property
    def consumers(self) -> list[Consumer]:
        """Those that see its bytes."""
        others = [result for result in (self.crcs, self.non_finite) if result is not None]
        return [*self.checksums.values(), *others]

    @property
    def looks_inside(self) -> bool:
        """Whether more than its checksums is wanted."""
        return self.crcs is not None or self.non_finite is not None

    @property
    def found(self) -> dict[str, Any]:
        """What its bytes have shown, as JSON has it: ``checksums`` by kind, and an ``error``."""
        computed = {kind: it.hexdigest() for kind, it in self.checksums.items()}
        reason = getattr(self.error, "strerror", None) or str(self.error)
        error = None if self.error is None else reason
        return {"checksums": self._taken_over or computed, "error": error}

    def take_over(self, found: Mapping[str, Any]) -> None:
        """Take over what another process has found."""
        self._taken_over = dict(found["checksums"])
        self.error = None if found["error"] is None else DamagedFileError(found["error"])

    def conclude(self) -> None:
        """Note what the bytes have shown."""
        if self.crcs is not None:
            self.faults += _crc_faults(self.path, self.crcs)
        if self.non_finite is not None:
            try:
                self.non_finite.finish()
            except CheckpointError as error:
                self.faults.append(error.for_commands)


def _crc_faults(path: Path, crcs: MemberCrcs) -> Iterator[str]:
    for member, found in crcs.wrong:
        yield (
            f"{path}: {member.name} has the CRC-32 {found:08x}; expected {member.crc:08x}. "
            "Its bytes have changed: download the file again."
        )
    for member in crcs.unread():
        yield f"{path} ended before {member.name} did; wait until whatever writes it is done."
