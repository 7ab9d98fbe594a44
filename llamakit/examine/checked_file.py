"""One file that ``verify`` reads: what looks at its bytes, and the faults that they show."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llamakit.checkpoint.hashing import Checksum, Consumer
from llamakit.checkpoint.pth_reader import PthFile
from llamakit.checkpoint.safetensors_reader import SafetensorsFile
from llamakit.checkpoint.tensor_file import TensorFile
from llamakit.checkpoint.zip_index import Member, index_zip
from llamakit.errors import CheckpointError, DamagedFileError, UnsupportedModelError
from llamakit.examine.contents import MemberCrcs, NonFiniteCounts
from llamakit.files.regular_file import open_regular

_PICKLED = re.compile(r"(pytorch_model|ft-model|hf_model|meta_model|torchtune_model).*\.(bin|pt)")
"""Weights that are pickled under another ending; other files of that ending are a trainer's."""
_TENSOR_FILES: Mapping[str, Callable[[Path], TensorFile]] = {
    ".pth": PthFile.open,
    ".safetensors": SafetensorsFile.open,
}


def opener_of(path: Path) -> Callable[[Path], TensorFile] | None:
    """Return what opens a file of tensors, by its name; None if it is something else."""
    return PthFile.open if _PICKLED.fullmatch(path.name) else _TENSOR_FILES.get(path.suffix)


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
            self._look_inside()

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
        error = None if self.error is None else getattr(self.error, "strerror", str(self.error))
        return {"checksums": self._taken_over or computed, "error": error}

    def take_over(self, found: Mapping[str, Any]) -> None:
        """Take over what another process has found."""
        self._taken_over = dict(found["checksums"])
        self.error = None if found["error"] is None else DamagedFileError(found["error"])

    def _look_inside(self) -> None:
        opened = _open_tensors(self.path, self.faults)
        if opened is not None:
            self.non_finite = NonFiniteCounts(opened)
        if (self.path.suffix == ".pth" or isinstance(opened, PthFile)) and (
            members := _members(self.path)
        ):
            self.crcs = MemberCrcs(members)

    def conclude(self) -> None:
        """Note what the bytes have shown."""
        if self.crcs is not None:
            self.faults += _crc_faults(self.path, self.crcs)
        if self.non_finite is not None:
            try:
                self.non_finite.finish()
            except CheckpointError as error:
                self.faults.append(error.for_commands)


def _open_tensors(path: Path, faults: list[str]) -> TensorFile | None:
    opens = opener_of(path)
    if opens is None:
        return None
    try:
        return opens(path)
    except (CheckpointError, UnsupportedModelError) as error:
        faults.append(error.for_commands)
        return None


def _members(path: Path) -> list[Member]:
    try:
        with open_regular(path) as file:
            return list(index_zip(file).values())
    except (OSError, ValueError):
        return []  # opening its tensors has said so


def _crc_faults(path: Path, crcs: MemberCrcs) -> Iterator[str]:
    for member, found in crcs.wrong:
        yield (
            f"{path}: {member.name} has the CRC-32 {found:08x}; expected {member.crc:08x}. "
            "Its bytes have changed: download the file again."
        )
    for member in crcs.unread():
        yield f"{path} ended before {member.name} did; wait until whatever writes it is done."
