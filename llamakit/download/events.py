"""What happens during a download, as plain values: for the screen, for logs and for ``--json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

FileStatus = Literal["there", "part", "missing", "wrong", "left alone"]
"""``wrong`` is fetched anew; ``left alone`` is wrong too, and not to be replaced."""


@dataclass(frozen=True)
class FilePlan:
    """One file: what there is of it, and what is to be fetched.

    Args:
        path: relative to the output folder.
        nbytes: its size; None while nobody has said.
        nbytes_there: how much of it is there.
        note: what is odd about it.
    """

    path: str
    nbytes: int | None
    status: FileStatus
    nbytes_there: int = 0
    note: str = ""


@dataclass(frozen=True)
class Planned:
    """What is about to be done."""

    files: tuple[FilePlan, ...]
    free_nbytes: int

    @property
    def nbytes_missing(self) -> int:
        """How much is to be fetched, as far as sizes are known."""
        return sum((file.nbytes or 0) - file.nbytes_there for file in self.wanted)

    @property
    def wanted(self) -> list[FilePlan]:
        """Return the files that are to be fetched."""
        return [file for file in self.files if file.status not in ("there", "left alone")]


@dataclass(frozen=True)
class Checked:
    """A file that was there has been compared with its checklist."""

    path: str
    nbytes: int
    good: bool
    note: str = ""
    is_page: bool = False
    """Whether it is an error page or empty: nothing that anybody wants to keep."""


@dataclass(frozen=True)
class Checking:
    """So much more of the files that are there has been read, of so much in all."""

    nbytes: int
    total: int


@dataclass(frozen=True)
class FileProgress:
    """How far a file is."""

    path: str
    nbytes: int
    nbytes_there: int
    nbytes_hashed: int


@dataclass(frozen=True)
class Progress:
    """How far the files are that are being fetched."""

    files: tuple[FileProgress, ...]


@dataclass(frozen=True)
class Retrying:
    """Something failed and is tried again."""

    path: str
    reason: str
    seconds: float


@dataclass(frozen=True)
class Restarted:
    """What was there of a file is worth nothing; it is fetched from its beginning."""

    path: str
    reason: str


@dataclass(frozen=True)
class Arrived:
    """A file is whole, right and has its name."""

    path: str
    nbytes: int
    md5: str | None


@dataclass(frozen=True)
class Failed:
    """A file could not be had; the others go on."""

    path: str
    reason: str


@dataclass(frozen=True)
class LinkEnded:
    """The server takes the link no more; what is being sent arrives still."""

    reason: str


@dataclass(frozen=True)
class Finished:
    """Everything is there."""

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
    | Finished
)


def as_json(event: Event) -> dict[str, Any]:
    """Return an event in JSON's terms; ``event`` is its kind."""
    kind = "".join(f"-{c.lower()}" if c.isupper() else c for c in type(event).__name__).lstrip("-")
    values: dict[str, Any] = {"event": kind, **asdict(event)}
    if isinstance(event, Planned):
        values["nbytes_missing"] = event.nbytes_missing
    return values
