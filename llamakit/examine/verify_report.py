"""What ``verify`` found, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from llamakit.protocols import Finding

Status = Literal["ok", "mismatch", "missing", "not served", "not listed", "unreadable"]


@dataclass(frozen=True)
class FileReport:
    """One file."""

    name: str
    """Relative to the folder."""
    status: Status
    expected: str | None = None
    """The MD5 or SHA-256 that the checklist gives."""
    found: str | None = None
    """That of the file, where it was computed: of the same kind, an MD5 if none is given."""
    note: str = ""
    """What is odd about it, such as ``an HTML page ("404")``."""
    good: bool = True


@dataclass(frozen=True)
class NonFinite:
    """A parameter that holds values which are no numbers."""

    name: str
    """As the files call it."""
    nan: int
    infinite: int
    """Both counted over all files that hold the parameter or a part of it."""
    files: tuple[str, ...]


@dataclass(frozen=True)
class FolderReport:
    """One folder."""

    path: Path
    files: tuple[FileReport, ...]
    faults: tuple[str, ...]
    """What is wrong beyond single checksums, a sentence each."""
    non_finite: tuple[NonFinite, ...]
    checked: tuple[str, ...]
    """What was looked at and found good."""
    not_checked: tuple[str, ...]
    """What could not be looked at, and why."""
    history: tuple[Finding, ...] = ()
    """What following its llamakit.json has shown."""

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        is_broken = any(finding.kind == "fault" for finding in self.history)
        faults = self.faults or self.non_finite or is_broken
        return not faults and all(file.good for file in self.files)


@dataclass(frozen=True)
class VerifyReport:
    """All folders that were looked at."""

    folders: tuple[FolderReport, ...]
    nbytes: int
    """How many bytes of files were read."""

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return all(folder.good for folder in self.folders)

    def as_json(self) -> Mapping[str, Any]:
        """Return the report in JSON's terms."""
        folders = [
            {**asdict(folder), "path": str(folder.path), "good": folder.good}
            for folder in self.folders
        ]
        return {"good": self.good, "nbytes": self.nbytes, "folders": folders}


@dataclass
class Findings:
    """What was found out about a folder so far."""

    faults: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    def fault(self, sentence: object) -> None:
        """Note what is wrong, once."""
        if str(sentence) not in self.faults:
            self.faults.append(str(sentence))
