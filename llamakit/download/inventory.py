"""The files that the chosen models need, and which of them are on disk and verified."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamakit.checkpoint.checklist import MODEL_CHECKLIST, Checklist
from llamakit.checkpoint.hashing import BlockRead, FilePass, read_files
from llamakit.checkpoint.not_weights import not_weights
from llamakit.download.catalog import Model
from llamakit.download.checksums import Hasher, kind
from llamakit.download.events import Checked, Checking, FilePlan, Planned
from llamakit.download.part_file import resumable_nbytes
from llamakit.download.responses import RemoteFile
from llamakit.download.verified_files import VerifiedFiles

CHECKLIST_SUFFIX = ".chk"
_SMALL_NBYTES = 8 << 20
LARGE_SUFFIXES = (".pth", ".safetensors", ".pt", ".pte", ".bin", ".gguf")


@dataclass(frozen=True)
class RequiredFile:
    """A file that a model needs.

    Args:
        path: relative to the output folder and to the link.
        checksum: from its checklist or the hub; None if nothing lists it.
        nbytes: approximate size, for planning; 0 if unknown.
        is_exact: whether its size is exact, and no server has to be asked.
    """

    path: str
    checksum: str | None = None
    nbytes: int = 0
    is_exact: bool = False

    @property
    def is_small(self) -> bool:
        """Whether it is fetched with one request."""
        return self.nbytes <= _SMALL_NBYTES if self.is_exact else not is_large(self.path)


def is_large(path: str) -> bool:
    """Tell by its name whether a file holds weights: its size is asked for before it is fetched."""
    return path.endswith(LARGE_SUFFIXES)


def checklist_paths(models: Sequence[Model]) -> list[str]:
    """List the checklists: those next to the folders, then each model's."""
    shared = [path for path in _root_paths(models) if path.endswith(CHECKLIST_SUFFIX)]
    return shared + [_checklist_path(model) for model in models if model.has_checklist]


def required_files(models: Sequence[Model], lists: Mapping[str, Checklist]) -> list[RequiredFile]:
    """List every file that models need except the checklists, each once.

    Args:
        lists: the checklists by path; where one is missing, the catalog entry is used instead.
    """
    shared: dict[str, str] = {}
    for path, checklist in lists.items():
        if "/" not in path:
            shared.update(checklist.entries)
    roots = [path for path in _root_paths(models) if not path.endswith(CHECKLIST_SUFFIX)]
    files = [RequiredFile(path, shared.get(path)) for path in roots]
    for model in models:
        files += _model_files(model, lists.get(_checklist_path(model)))
    return files


def plan_files(
    folder: Path,
    files: Sequence[RequiredFile],
    remote_files: Mapping[RequiredFile, RemoteFile],
    *,
    missing: Sequence[RequiredFile] = (),
    wrong: Mapping[str, str] | None = None,
) -> Planned:
    """Return the plan: how much of each file is on disk, and what will be fetched.

    Args:
        remote_files: the server's data on large files.
        missing: files that will be fetched, even if one is on disk.
        wrong: files that are wrong and will not be replaced, with the reason.
    """
    plans = []
    for file in files:
        probe = remote_files.get(file)
        plan = _plan(folder, file, probe.identity.nbytes if probe else None)
        if plan.status == "there" and file in missing:
            plan = FilePlan(file.path, plan.nbytes, "wrong")
        if note := (wrong or {}).get(file.path):
            plan = FilePlan(file.path, plan.nbytes, "left alone", plan.nbytes_there, note)
        plans.append(plan)
    return Planned(tuple(plans), free_nbytes(folder))


def _plan(folder: Path, file: RequiredFile, nbytes: int | None) -> FilePlan:
    """Return how much of a file is on disk, by its size alone."""
    path = folder / file.path
    if path.is_file():
        on_disk = path.stat().st_size
        return FilePlan(file.path, on_disk if nbytes is None else nbytes, "there", on_disk)
    size = nbytes if nbytes is not None else file.nbytes or None
    there = min(resumable_nbytes(path), size) if size else 0
    return FilePlan(file.path, size, "part" if there else "missing", there)


def _root_paths(models: Sequence[Model]) -> list[str]:
    """List the files next to the folders, which the models share, each once."""
    paths = [path for model in models for path in (*model.root_files, *model.tokenizer_files)]
    return list(dict.fromkeys(paths))


def _checklist_path(model: Model) -> str:
    return f"{model.folder}/{MODEL_CHECKLIST}"


def _model_files(model: Model, checklist: Checklist | None) -> list[RequiredFile]:
    entries: Mapping[str, str | None] = checklist.entries if checklist else {}
    if checklist is None and model.has_checklist:
        entries = dict.fromkeys(model.shard_names)
    unlisted = [name for name in model.files if name not in entries]
    omitted = (MODEL_CHECKLIST, *model.unserved_files)
    names = unlisted + sorted(name for name in entries if name not in omitted)
    return [
        RequiredFile(
            f"{model.folder}/{name}",
            entries.get(name),
            model.shard_nbytes if is_large(name) else 0,
        )
        for name in names
    ]


def free_nbytes(folder: Path) -> int:
    """Return how many bytes are free where a folder is or will be created."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check(
    folder: Path, files: Sequence[RequiredFile], verified: VerifiedFiles
) -> Iterator[Checking | Checked]:
    """Compare the files on disk with their checklists; absent files are skipped.

    Yields:
        ``Checked`` once for each, and ``Checking`` while they are read.
    """
    to_read: dict[Path, tuple[RequiredFile, Hasher]] = {}
    for file in files:
        path = folder / file.path
        if not path.is_file():
            continue
        size = path.stat().st_size
        if not file.is_exact and (description := not_weights(path)):
            yield Checked(file.path, size, good=False, note=f"it is {description}", is_page=True)
        elif file.checksum is None or verified.contains(file.path, file.checksum):
            yield Checked(file.path, size, good=True)
        else:
            to_read[path] = (file, Hasher(file.checksum, size))
    total = sum(path.stat().st_size for path in to_read)
    for event in read_files([FilePass(path, [one]) for path, (_, one) in to_read.items()]):
        if isinstance(event, BlockRead):
            yield Checking(event.nbytes, total)
            continue
        if event.error is not None:
            raise event.error
        file, hasher = to_read[event.path]
        yield _compared(file, event.path, hasher.hexdigest(), verified)


def _compared(file: RequiredFile, path: Path, found: str, verified: VerifiedFiles) -> Checked:
    assert file.checksum is not None
    nbytes = path.stat().st_size
    if found == file.checksum:
        verified.add(file.path, found)
        return Checked(file.path, nbytes, good=True)
    note = f"expected {kind(file.checksum)} {file.checksum}, found {found}"
    return Checked(file.path, nbytes, good=False, note=note, is_page=bool(not_weights(path)))
