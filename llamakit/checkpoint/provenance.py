"""``llamakit.json``: which commands made a checkpoint, from what, and the checksums of both.

It is a list of steps, the oldest first. The last one made the folder that the file is in; the
others are those of its sources, taken over from their own ``llamakit.json``. No time, no path and
no user is in it: the same command with the same source gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llamakit._distribution import __version__
from llamakit.files.home_folder import expand_home
from llamakit.printable import printable
from llamakit.protocols import ToolCommand

PROVENANCE = "llamakit.json"
FORMAT = "llamakit provenance 1"
READ = "read"
"""The origin of a checksum that was computed from the bytes that a command read."""
SMALL_NBYTES = 32 << 20
"""A file up to this is read for its checksum; the largest tokenizer.json has 17 MB."""
MAX_STEPS = 100
"""Steps of one file. With more, what the sources' files say is left out."""
MAX_FILES = 20_000
"""Files of one source or step: a Hugging Face folder of 405B has 200."""
_CHECKSUM_KEYS = {32: "md5", 64: "sha256"}


@dataclass(frozen=True)
class RecordedFile:
    """A file that was read or written."""

    name: str
    """Relative to its folder."""
    nbytes: int | None
    """None: not known, as of a file that was there before a download."""
    checksum: str | None
    """An MD5 or a SHA-256 in hex digits; None: it is not known."""
    origin: str = ""
    """Of a source's checksum: ``read``, or the list that gave it and that nobody compared."""

    def as_json(self) -> dict[str, object]:
        """Return it in JSON's terms; what is not known is absent."""
        values: dict[str, object] = {"name": self.name}
        if self.nbytes is not None:
            values["nbytes"] = self.nbytes
        if self.checksum is not None:
            values[_CHECKSUM_KEYS[len(self.checksum)]] = self.checksum
            if self.origin:
                values["from"] = self.origin
        return values


@dataclass(frozen=True)
class Source:
    """What a command read."""

    name: str
    """Of its folder, without where that is; or ``owner/name`` of the hub."""
    form: str
    """The format; ``catalog`` or ``hub`` of a download."""
    files: tuple[RecordedFile, ...]
    step: int | None = None
    """The index of the step that wrote it; None: no record says."""
    revision: str = ""
    """The commit, of the hub."""

    def as_json(self) -> dict[str, object]:
        """Return it in JSON's terms."""
        values: dict[str, object] = {"name": self.name, "form": self.form}
        if self.revision:
            values["revision"] = self.revision
        if self.step is not None:
            values["step"] = self.step
        return values | {"files": [file.as_json() for file in self.files]}


@dataclass(frozen=True)
class Step:
    """One command that wrote a checkpoint."""

    command: str
    options: Mapping[str, Any]
    made_by: str
    """The program and its version."""
    sources: tuple[Source, ...]
    files: tuple[RecordedFile, ...]
    """What it wrote, but for ``llamakit.json`` and the checklist."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """What the files themselves do not say, such as ``embedding_axis``."""

    def as_json(self) -> dict[str, object]:
        """Return it in JSON's terms."""
        return {
            "command": self.command,
            "options": dict(self.options),
            "made_by": self.made_by,
            "sources": [source.as_json() for source in self.sources],
            "model": dict(self.model),
            "files": [file.as_json() for file in self.files],
        }


def make_step(
    command: ToolCommand,
    sources: Iterable[Source],
    files: Iterable[RecordedFile],
    model: Mapping[str, Any] | None = None,
) -> Step:
    """Return the step of a command; what was not given of its options is left out."""
    options = {name: value for name, value in command.options.items() if value is not None}
    made_by = command.made_by or f"llamakit {__version__}"
    return Step(command.name, options, made_by, tuple(sources), tuple(files), model or {})


def format_steps(steps: Sequence[Step]) -> bytes:
    """Return the content of a ``llamakit.json``."""
    values = {"format": FORMAT, "steps": [step.as_json() for step in steps]}
    return (json.dumps(values, indent=1) + "\n").encode()


def join_histories(histories: Sequence[Sequence[Step]]) -> tuple[list[Step], list[int | None]]:
    """Join the steps of several sources, each step once.

    Returns:
        The steps, and for each source the index of the last of its own; None where it has none, or
        where there would be more than ``MAX_STEPS``.
    """
    joined: list[Step] = []
    places: dict[str, int] = {}
    last: list[int | None] = []
    for steps in histories:
        moved: list[int] = []
        if len(steps) + len(joined) >= MAX_STEPS:
            last.append(None)
            continue
        for step in steps:
            sources = tuple(
                source if source.step is None else replace(source, step=moved[source.step])
                for source in step.sources
            )
            step = replace(step, sources=sources)  # noqa: PLW2901 - the same step, in its new list
            key = json.dumps(step.as_json(), sort_keys=True)
            if key not in places:
                places[key] = len(joined)
                joined.append(step)
            moved.append(places[key])
        last.append(moved[-1] if moved else None)
    return joined, last


def provenance_path(path: Path) -> Path:
    """Return where the record of a checkpoint is: in its folder, or next to its only file."""
    return path / PROVENANCE if path.is_dir() else path.with_name(f"{path.name}.{PROVENANCE}")


def folder_name(path: Path) -> str:
    """Return what a record calls a folder: its name alone, and no user's."""
    path = path.resolve()
    name = "~" if path == expand_home("~") else path.name
    return printable(name)
