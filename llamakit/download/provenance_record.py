"""Writes the llamakit.json of a downloaded folder: which checksums its files were compared with."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llamakit.checkpoint.checklist import MODEL_CHECKLIST
from llamakit.checkpoint.hashing import checksum_files
from llamakit.checkpoint.provenance import (
    PROVENANCE,
    READ,
    SMALL_NBYTES,
    RecordedFile,
    Source,
    format_steps,
    make_step,
)
from llamakit.download.catalog import Model
from llamakit.download.inventory import RequiredFile, is_large
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
        mine = {it.path: it.checksum for it in files if _is_in(it.path, model.folder)}
        if model.has_checklist:
            mine[f"{model.folder}/{MODEL_CHECKLIST}"] = None
        recorded = _recorded(folder, model.folder, mine, MODEL_CHECKLIST)
        _write(folder / model.folder, Source(model.folder, "catalog", recorded))


def record_repo(folder: Path, repo_id: str, commit: str, files: Sequence[RequiredFile]) -> None:
    """Record files of a repository of the hub, in each folder that has weights.

    Args:
        folder: the output folder.
        files: with the checksums that the hub gives: they are verified.
    """
    checksums = {file.path: file.checksum for file in files}
    for beside in {path.rpartition("/")[0] for path in checksums if is_large(path)}:
        mine = {path: it for path, it in checksums.items() if _is_in(path, beside)}
        recorded = _recorded(folder, beside, mine, _HUB)
        _write(folder / beside, Source(repo_id, _HUB, recorded, revision=commit))


def _is_in(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")


def _recorded(
    folder: Path, beside: str, checksums: Mapping[str, str | None], listed_by: str
) -> tuple[RecordedFile, ...]:
    """Return what is known of files; of a small one that no list has, the MD5 is computed.

    Args:
        beside: where the record is going to be.
        checksums: by path, below it; the hub has those of git for small files.
    """
    known = {path: it for path, it in checksums.items() if it and len(it) in _DIGITS}
    sizes = {
        path: (folder / path).stat().st_size for path in checksums if (folder / path).is_file()
    }
    small = [
        path
        for path, nbytes in sizes.items()
        if path not in known and nbytes <= SMALL_NBYTES and not is_large(path)
    ]
    computed = checksum_files({folder / path: None for path in small})
    return tuple(
        RecordedFile(path.removeprefix(f"{beside}/"), nbytes, known[path], listed_by)
        if path in known
        else RecordedFile(
            path.removeprefix(f"{beside}/"), nbytes, computed.get(folder / path), READ
        )
        for path, nbytes in sizes.items()
    )


def _write(beside: Path, source: Source) -> None:
    if any(file.name == PROVENANCE for file in source.files):
        return  # the server has sent one, with the history of these files; its checksum is listed
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
