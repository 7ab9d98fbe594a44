"""The events of a download, as plain values: for progress bars, logs and ``--json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

FileStatus = Literal["there", "part", "missing", "wrong", "left alone"]
"""``wrong`` is fetched again; ``left alone`` is wrong too, and not replaced without --repair."""


@dataclass(frozen=True)
class FilePlan:
    """One file: how much of it is on disk, and whether it will be fetched.

    Args:
        path: relative to the output folder.
        nbytes: its size; None while it is unknown.
        nbytes_there: how many bytes are on disk.
        note: why it is wrong.
    """

    path: str
    nbytes: int | None
    status: FileStatus
    nbytes_there: int = 0
    note: str = ""


@dataclass(frozen=True)
class Planned:
    """The plan: every file, and the free disk space."""

    files: tuple[FilePlan, ...]
    free_nbytes: int

    @property
    def nbytes_missing(self) -> int:
        """How many bytes will be fetched, as far as sizes are known."""
        return sum((file.nbytes or 0) - file.nbytes_there for file in self.to_fetch)

    @property
    def to_fetch(self) -> list[FilePlan]:
        """The files that will be fetched."""
        return [file for file in self.files if file.status not in ("there", "left alone")]


@dataclass(frozen=True)
class Checked:
    """A file on disk has been compared with its checklist."""

    path: str
    nbytes: int
    good: bool
    note: str = ""
    is_page: bool = False
    """Whether it is an error page or empty: it is replaced without --repair."""


@dataclass(frozen=True)
class Checking:
    """The next ``nbytes`` of the files on disk have been read, of ``total``."""

    nbytes: int
    total: int


@dataclass(frozen=True)
class FileProgress:
    """How much of a file has been written and hashed."""

    path: str
    nbytes: int
    nbytes_there: int
    nbytes_hashed: int


@dataclass(frozen=True)
class Progress:
    """The progress of the files that are being fetched."""

    files: tuple[FileProgress, ...]


@dataclass(frozen=True)
class Retrying:
    """A request failed and will be sent again after ``seconds``."""

    path: str
    reason: str
    seconds: float


@dataclass(frozen=True)
class Restarted:
    """A file is fetched from its beginning; what was there of it is discarded."""

    path: str
    reason: str


@dataclass(frozen=True)
class Arrived:
    """A file is complete and verified, and has been renamed into place."""

    path: str
    nbytes: int
    md5: str | None
    sha256: str | None = None
    """What the hub gives of large files, in place of an MD5."""


@dataclass(frozen=True)
class Failed:
    """A file could not be fetched; the others continue."""

    path: str
    reason: str


@dataclass(frozen=True)
class LinkEnded:
    """The link has expired; responses that have begun are still read."""

    reason: str


@dataclass(frozen=True)
class Converted:
    """What was fetched has been written in another format, and renamed into place.

    Args:
        destination: the folder.
        files: name, size in bytes and MD5 of each; None where no checklist lists it.
    """

    destination: str
    files: tuple[tuple[str, int, str | None], ...]


@dataclass(frozen=True)
class Finished:
    """All files are there and verified."""

    nfiles: int
    nbytes_fetched: int
    nrequests: int
    seconds: float


Event = (
    Planned
    | Checked
    | Checking
    | Progress
    | Retrying
    | Restarted
    | Arrived
    | Failed
    | LinkEnded
    | Converted
    | Finished
)


def arrived(path: str, nbytes: int, checksum: str | None) -> Arrived:
    """Return the event of a file with its checksum, of whatever kind."""
    is_sha256 = checksum is not None and len(checksum) == 64
    is_md5 = checksum is not None and len(checksum) == 32
    return Arrived(
        path, nbytes, checksum if is_md5 else None, sha256=checksum if is_sha256 else None
    )


def as_json(event: Event) -> dict[str, Any]:
    """Return an event as JSON; ``event`` is its kind."""
    kind = "".join(f"-{c.lower()}" if c.isupper() else c for c in type(event).__name__).lstrip("-")
    values: dict[str, Any] = {"event": kind, **asdict(event)}
    if isinstance(event, Planned):
        values["nbytes_missing"] = event.nbytes_missing
    if isinstance(event, Converted):
        names = ("name", "nbytes", "md5")
        values["files"] = [dict(zip(names, file, strict=True)) for file in event.files]
    return values
