"""Writes the llamakit.json of a downloaded folder: which checksums its files were compared with."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from llamakit.checkpoint.checklist import MODEL_CHECKLIST
from llamakit.checkpoint.hashing import checksum_files
from llamakit.checkpoint.provenance import (
    PROVENANCE,
    READ,
    RecordedFile,
    Source,
    format_steps,
    make_step,
)
from llamakit.checkpoint.provenance_sources import SMALL_NBYTES
from llamakit.download.catalog import Model
from llamakit.download.inventory import RequiredFile
from llamakit.files.atomic_file import write_atomically
from llamakit.protocols import ToolCommand

_DIGITS = (32, 64)
_HUB = "hub"


def record_models(folder: Path, models: Iterable[Model], files: Sequence[RequiredFile]) -> None:
    """Record models of the catalog, in the folder of each; no link is in it.

    Args:
        folder: the output folder.
        files: all that the models need, with the checksums of their checklists: they are verified.
    """
    for model in models:
        beside = folder / model.folder
        mine = [file for file in files if file.path.startswith(f"{model.folder}/")]
        if model.has_checklist:
            mine.append(RequiredFile(f"{model.folder}/{MODEL_CHECKLIST}"))
        source = Source(
            model.name, "catalog", _recorded(beside, model.folder, mine, MODEL_CHECKLIST)
        )
        _write(beside, source)


def record_repo(
    folder: Path, repo_id: str, name: str, commit: str, files: Sequence[RequiredFile]
) -> None:
    """Record files of a repository of the hub, in its folder.

    Args:
        folder: the output folder.
        name: of the repository's folder in it.
        files: with the checksums that the hub gives: they are verified.
    """
    beside = folder / name
    _write(beside, Source(repo_id, "hub", _recorded(beside, name, files, _HUB), revision=commit))


def _recorded(
    beside: Path, name: str, files: Sequence[RequiredFile], listed_by: str
) -> tuple[RecordedFile, ...]:
    """Return what is known of files; of a small one that no list has, the MD5 is computed."""
    known = {file.path: file.checksum for file in files}
    paths = {file.path: beside / file.path.removeprefix(f"{name}/") for file in files}
    small = {
        path: None
        for key, path in paths.items()
        if len(known[key] or "") not in _DIGITS
        and path.is_file()
        and path.stat().st_size <= SMALL_NBYTES
    }
    computed = checksum_files(small)
    recorded = []
    for key, path in paths.items():
        if path.is_file():
            listed = path not in small and known[key] is not None
            checksum = known[key] if listed else computed.get(path)
            origin = listed_by if listed else READ
            relative = path.relative_to(beside).as_posix()
            recorded.append(RecordedFile(relative, path.stat().st_size, checksum, origin))
    return tuple(recorded)


def _write(beside: Path, source: Source) -> None:
    files = [replace(file, origin="") for file in source.files]
    try:
        content = format_steps([make_step(ToolCommand("download"), [source], files)])
        write_atomically(beside / PROVENANCE, content)
    except OSError as error:
        logging.getLogger("llamakit").warning(
            "%s is not written: %s; the model itself is complete",
            beside / PROVENANCE,
            error.strerror,
        )
