"""What ``llamakit.json`` says of the checkpoints that a command reads, and of their files.

No file of weights is read for it. A checksum of one that a checklist or the source's own record
gives is taken over, with the name of that list; others are computed from the bytes that a
conversion reads anyway, or are not known. Small files are read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llamakit.checkpoint.capabilities import provenance_sources, weight_files
from llamakit.checkpoint.checklist import MODEL_CHECKLIST, TOKENIZER_CHECKLIST, read_checklist
from llamakit.checkpoint.hashing import checksum_files
from llamakit.checkpoint.provenance import (
    PROVENANCE,
    READ,
    SMALL_NBYTES,
    RecordedFile,
    Source,
    Step,
    folder_name,
    join_histories,
    make_step,
)
from llamakit.checkpoint.provenance_reader import read_steps
from llamakit.errors import DamagedFileError
from llamakit.printable import printable
from llamakit.protocols import Checkpoint, ToolCommand

_SETTINGS = ("params.json", "config.json", MODEL_CHECKLIST)
_LISTS = (TOKENIZER_CHECKLIST, MODEL_CHECKLIST)


@dataclass(frozen=True)
class ReadSource:
    """A checkpoint that is read, as far as it is known before."""

    source: Source
    paths: tuple[Path, ...]
    """Of ``source.files``, in the same order."""
    history: tuple[Step, ...]

    @property
    def unknown(self) -> list[Path]:
        """The files whose checksums are not known."""
        pairs = zip(self.paths, self.source.files, strict=True)
        return [path for path, file in pairs if file.checksum is None]

    def completed(self, computed: Mapping[Path, str]) -> Source:
        """Return the source with the checksums that have been computed from what was read."""
        files = tuple(
            replace(file, checksum=computed[path], origin=READ) if path in computed else file
            for path, file in zip(self.paths, self.source.files, strict=True)
        )
        return replace(self.source, files=files)


def read_sources(checkpoint: Checkpoint, others: Iterable[Path] = ()) -> list[ReadSource]:
    """Say what a command reads.

    Args:
        checkpoint: the one that it reads; of one that is computed from several, all are said.
        others: what it reads besides the weights, such as a tokenizer.
    Raises:
        PluginError: a third-party checkpoint names no files.
    """
    checkpoints = provenance_sources(checkpoint)
    left = dict.fromkeys(others)
    read = []
    for number, one in enumerate(checkpoints):
        is_last = number == len(checkpoints) - 1
        mine = [path for path in left if is_last or _is_in(path, one.path)]
        left = {path: None for path in left if path not in mine}
        settings = [one.path / name for name in _SETTINGS if (one.path / name).is_file()]
        paths = dict.fromkeys([*weight_files(one), *settings, *mine])
        read.append(_read_source(one, tuple(paths)))
    return read


def steps_of(
    command: ToolCommand,
    sources: Iterable[ReadSource],
    files: Iterable[RecordedFile],
    *,
    computed: Mapping[Path, str] | None = None,
    model: Mapping[str, object] | None = None,
) -> list[Step]:
    """Return all steps to what a command has written.

    Args:
        files: what it has written.
        computed: checksums of files of the sources that were computed from what was read.
        model: as ``Step.model``.
    """
    sources = list(sources)
    joined, last = join_histories([source.history for source in sources])
    linked = [
        replace(source.completed(computed or {}), step=step)
        for source, step in zip(sources, last, strict=True)
    ]
    return [*joined, make_step(command, linked, files, model)]


def _read_source(checkpoint: Checkpoint, paths: tuple[Path, ...]) -> ReadSource:
    history = _history(checkpoint.path)
    known = _known(paths, checkpoint.path, history)
    beside = paths[len(weight_files(checkpoint)) :]
    small = {
        path: known[path][0] if path in known else None  # of the same kind, to be comparable
        for path in beside
        if path.stat().st_size <= SMALL_NBYTES
    }
    known |= {path: (digits, READ) for path, digits in checksum_files(small).items()}
    files = tuple(
        RecordedFile(
            _name(path, checkpoint.path), path.stat().st_size, *known.get(path, (None, ""))
        )
        for path in paths
    )
    source = Source(folder_name(checkpoint.path), printable(checkpoint.form), files)
    return ReadSource(source, paths, tuple(history))


def _known(paths: Iterable[Path], folder: Path, history: list[Step]) -> dict[Path, tuple[str, str]]:
    """Return the checksums that lists give, each with the name of the list."""
    known: dict[Path, tuple[str, str]] = {}
    written = {file.name: file for file in history[-1].files} if history else {}
    for path in paths:
        file = written.get(_name(path, folder)) if _is_in(path, folder) else None
        if file and file.checksum and file.nbytes in (None, path.stat().st_size):
            known[path] = file.checksum, PROVENANCE
    for parent in dict.fromkeys(path.parent for path in paths):
        for name, checksums in _lists(parent):
            for path in paths:
                if path.parent == parent and path.name in checksums:
                    known[path] = checksums[path.name], name
    return known


def _lists(folder: Path) -> list[tuple[str, Mapping[str, str]]]:
    found = []
    for name in _LISTS:
        if (folder / name).exists():
            try:
                found.append((name, read_checklist(folder / name).entries))
            except DamagedFileError as error:
                _log().warning("its checksums are not recorded: %s", error.for_commands)
    return found


def _history(path: Path) -> list[Step]:
    try:
        return read_steps(path)
    except DamagedFileError as error:
        _log().warning("the history of the source is not recorded: %s", error.for_commands)
        return []


def _is_in(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder) or path.is_relative_to(folder.resolve())


def _name(path: Path, folder: Path) -> str:
    """Return the name of a file in its folder; of one elsewhere the last name alone."""
    for root in (folder, folder.resolve()):
        if path.is_relative_to(root) and path != root:
            return printable(path.relative_to(root).as_posix(), 1000)
    return printable(path.name)


def _log() -> logging.Logger:
    return logging.getLogger("llamakit")
