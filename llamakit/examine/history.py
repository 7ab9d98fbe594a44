"""Follows ``llamakit.json`` from a checkpoint back to the checklist that it began with.

No file of weights is read: what one step says that it read is compared with what the step before
says that it wrote, with the checklist of a source that is still there, and with the catalog.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from llamakit.checkpoint.checklist import MODEL_CHECKLIST, read_checklist
from llamakit.checkpoint.provenance import (
    PROVENANCE,
    READ,
    RecordedFile,
    Source,
    Step,
    folder_name,
)
from llamakit.checkpoint.provenance_reader import read_steps
from llamakit.errors import DamagedFileError
from llamakit.printable import listed, quoted
from llamakit.protocols import Finding

DOWNLOADED = ("catalog", "hub")
"""The forms of sources that were no folder."""


class _Lists:
    """The checksums that folders give of their files, each list read once."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Mapping[str, str], str]] = {}

    def of(self, folder: Path) -> tuple[Mapping[str, str], str]:
        """Return the checksums of a folder's checklist, else of its own record; and which it is."""
        if folder not in self._known:
            self._known[folder] = _read_list(folder)
        return self._known[folder]


def _read_list(folder: Path) -> tuple[Mapping[str, str], str]:
    try:
        return read_checklist(folder / MODEL_CHECKLIST).entries, MODEL_CHECKLIST
    except DamagedFileError:
        pass  # a Hugging Face folder has none
    try:
        steps = read_steps(folder)
    except DamagedFileError:
        return {}, PROVENANCE
    written = steps[-1].files if steps else ()
    return {file.name: file.checksum for file in written if file.checksum}, PROVENANCE


def follow_history(
    path: Path, steps: Sequence[Step], catalog: Mapping[str, Collection[str]]
) -> Iterator[Finding]:
    """Check what can be checked of a history, and say what cannot.

    Args:
        path: the folder that it is of.
        steps: as ``read_steps`` returns them.
        catalog: the files of weights of each model of the catalog, by the model's folder.
    """
    written = [{file.name: file for file in step.files} for step in steps]
    lists = _Lists()
    for number, step in enumerate(steps, 1):
        for source in step.sources:
            where = f"step {number} ({step.command}) read {source.name}"
            if source.form == "catalog":
                yield from _compare_with_catalog(where, source, catalog)
            if source.step is not None:
                wrote = f"step {source.step + 1} ({steps[source.step].command})"
                yield from _compare_files(where, source, written[source.step], wrote)
            if source.form not in DOWNLOADED:
                yield from _look_at_source(where, source, path, lists)
            yield from _say_what_is_unknown(where, source)


def _compare_files(
    where: str, source: Source, written: Mapping[str, RecordedFile], wrote: str
) -> Iterator[Finding]:
    """Compare what was read with what an earlier step wrote."""
    known: list[str] = []
    differing: list[str] = []
    for file in source.files:
        other = written.get(file.name)
        if other is None or not _are_comparable(file, other):
            continue
        is_equal = file.checksum is not None and file.checksum == other.checksum
        (known if is_equal else differing).append(file.name)
    if differing:
        yield Finding(
            f"{where}, whose {listed(differing)} were no longer as {wrote} wrote them",
            "fault",
        )
    if known:
        yield Finding(
            f"{where}: {len(known)} files are as {wrote} wrote them",
            "checked",
        )


def _compare_with_catalog(
    where: str, source: Source, catalog: Mapping[str, Collection[str]]
) -> Iterator[Finding]:
    shards = catalog.get(source.name)
    if shards is None:
        yield Finding(f"{where}: the catalog has no such model", "not checked")
        return
    names = {file.name for file in source.files}
    if missing := sorted(set(shards) - names):
        yield Finding(f"{where}, of which the catalog lists {listed(missing)} too", "fault")
    else:
        yield Finding(
            f"{where}: its {len(shards)} shards are those of the catalog; the catalog "
            "has no checksums, Meta's checklist had them",
            "checked",
        )


def _look_at_source(where: str, source: Source, path: Path, lists: _Lists) -> Iterator[Finding]:
    """Compare with the checklist of a source that is still next to the folder or above it."""
    folder = _find(source, path)
    if folder is None:
        yield Finding(
            f"{where}: no such folder is next to {path.name}, so its files were not "
            "compared with it",
            "not checked",
        )
        return
    gone, other = [], []
    for file in source.files:
        size = _nbytes(folder / file.name)
        if size is None:
            gone.append(file.name)
        elif file.nbytes is not None and size != file.nbytes:
            other.append(file.name)
    if other:
        yield Finding(
            f"{where}, and {folder} is another one by now: {listed(other)} have another size",
            "not checked",
        )
        return
    yield from _compare_with_lists(where, source, folder, gone, lists)


def _compare_with_lists(
    where: str, source: Source, folder: Path, gone: Sequence[str], lists: _Lists
) -> Iterator[Finding]:
    entries, listed_by = lists.of(folder)
    same: list[str] = []
    differing: list[str] = []
    for file in source.files:
        entry = entries.get(file.name)
        if entry and file.checksum and len(entry) == len(file.checksum):
            (same if entry == file.checksum else differing).append(file.name)
    if differing:
        yield Finding(
            f"{where}, and {listed_by} in {folder} gives {listed(differing)} another checksum",
            "fault",
        )
    elif same:
        absent = f" ({listed(gone)} are gone)" if gone else ""
        yield Finding(
            f"{where}: {len(same)} checksums are those of {listed_by} in {folder}{absent}; to "
            f"check its bytes too: llamakit verify {quoted(folder)}",
            "checked",
        )
    else:
        yield Finding(
            f"{where}: {folder} is there, and no list in it has checksums of these files",
            "not checked",
        )


def _say_what_is_unknown(where: str, source: Source) -> Iterator[Finding]:
    unknown = [file.name for file in source.files if file.checksum is None]
    if unknown:
        yield Finding(f"{where}: nobody knows the checksums of {listed(unknown)}", "not checked")
    trusted = {file.origin for file in source.files if file.checksum} - {READ, ""}
    if trusted and source.form not in DOWNLOADED:
        yield Finding(
            f"{where}: checksums are from {listed(sorted(trusted))} there; that run did "
            "not compare the files with them",
            "not checked",
        )


def _find(source: Source, path: Path) -> Path | None:
    """Return the folder of a source, if it is next to the checkpoint or around it."""
    above = path.resolve().parent
    for folder in (above / source.name, above, above.parent / source.name):
        if "/" not in source.name and folder.is_dir() and folder_name(folder) == source.name:
            return folder
    return None


def _nbytes(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


def _are_comparable(one: RecordedFile, other: RecordedFile) -> bool:
    same_kind = one.checksum and other.checksum and len(one.checksum) == len(other.checksum)
    return bool(same_kind) or _sizes_differ(one, other)


def _sizes_differ(one: RecordedFile, other: RecordedFile) -> bool:
    return None not in (one.nbytes, other.nbytes) and one.nbytes != other.nbytes
