"""The files that the chosen models need, and which of them are on disk and verified."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamakit.checkpoint.checklist import MODEL_CHECKLIST, Checklist
from llamakit.checkpoint.hashing import BlockRead, FilePass, Md5, read_files
from llamakit.checkpoint.not_weights import not_weights
from llamakit.download.catalog import Model
from llamakit.download.events import Checked, Checking, FilePlan, Planned
from llamakit.download.http_client import RemoteFile
from llamakit.download.part_file import resumable_nbytes
from llamakit.download.verified_files import VerifiedFiles

CHECKLIST_SUFFIX = ".chk"
SHARD_SUFFIXES = (".pth", ".safetensors")


@dataclass(frozen=True)
class RequiredFile:
    """A file that a model needs.

    Args:
        path: relative to the output folder and to the link.
        md5: from its checklist; None if no checklist lists it.
        nbytes: approximate size, for planning; 0 for a small file.
    """

    path: str
    md5: str | None = None
    nbytes: int = 0

    @property
    def is_small(self) -> bool:
        """Whether it is fetched with one request."""
        return not self.nbytes


def checklist_paths(models: Sequence[Model]) -> list[str]:
    """List the checklists: those next to the folders, then each model's."""
    shared = [path for path in _root_paths(models) if path.endswith(CHECKLIST_SUFFIX)]
    return shared + [_checklist_path(model) for model in models]


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
    return Planned(tuple(plans), _free_nbytes(folder))


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
    params = f"{model.folder}/params.json"
    if checklist is None:
        shards = [
            RequiredFile(path, None, max(1, model.shard_nbytes)) for path in model.shard_paths
        ]
        return [RequiredFile(params), *shards]
    listed = {f"{model.folder}/{name}": md5 for name, md5 in checklist.entries.items()}
    listed.pop(_checklist_path(model), None)
    files = [
        RequiredFile(path, md5, max(1, model.shard_nbytes) if path.endswith(SHARD_SUFFIXES) else 0)
        for path, md5 in sorted(listed.items())
    ]
    return files if params in listed else [RequiredFile(params), *files]


def _free_nbytes(folder: Path) -> int:
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
    to_read: dict[Path, tuple[RequiredFile, Md5]] = {}
    for file in files:
        path = folder / file.path
        if not path.is_file():
            continue
        size = path.stat().st_size
        if description := not_weights(path):
            yield Checked(file.path, size, good=False, note=f"it is {description}", is_page=True)
        elif file.md5 is None or verified.contains(file.path, file.md5):
            yield Checked(file.path, size, good=True)
        else:
            to_read[path] = (file, Md5())
    total = sum(path.stat().st_size for path in to_read)
    for event in read_files([FilePass(path, [md5]) for path, (_, md5) in to_read.items()]):
        if isinstance(event, BlockRead):
            yield Checking(event.nbytes, total)
            continue
        if event.error is not None:
            raise event.error
        file, md5 = to_read[event.path]
        yield _compared(file, event.path.stat().st_size, md5.hexdigest(), verified)


def _compared(file: RequiredFile, nbytes: int, found: str, verified: VerifiedFiles) -> Checked:
    assert file.md5 is not None
    if found == file.md5:
        verified.add(file.path, found)
        return Checked(file.path, nbytes, good=True)
    return Checked(file.path, nbytes, good=False, note=f"expected MD5 {file.md5}, found {found}")
