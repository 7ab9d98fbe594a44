"""What the chosen models need, and what of it is there already and right."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamakit.checkpoint.checklist import MODEL_CHECKLIST, Checklist
from llamakit.checkpoint.hashing import BlockRead, FilePass, Md5, read_files
from llamakit.checkpoint.not_weights import impostor
from llamakit.download.catalog import Model
from llamakit.download.events import Checked, Checking, FilePlan, Planned
from llamakit.download.http_client import Probe
from llamakit.download.journal import Journal
from llamakit.download.part_file import left_over

LIST = ".chk"
LARGE = (".pth", ".safetensors")


@dataclass(frozen=True)
class Wanted:
    """A file that a model needs.

    Args:
        path: relative to the output folder and to the link.
        md5: what its list says; None if no list names it.
        nbytes: about how large it is, for planning; 0 for a small file.
    """

    path: str
    md5: str | None = None
    nbytes: int = 0

    @property
    def is_small(self) -> bool:
        """Whether it is fetched with one request."""
        return not self.nbytes


def list_paths(models: Sequence[Model]) -> list[str]:
    """List the checklists: those beside the folders, then each model's."""
    beside = [path for path in _root_paths(models) if path.endswith(LIST)]
    return beside + [_list_of(model) for model in models]


def wanted_files(models: Sequence[Model], lists: Mapping[str, Checklist]) -> list[Wanted]:
    """List every file that models need but for the checklists, each once.

    Args:
        lists: by path; while one is missing, the catalogue's expectations stand for it.
    """
    beside: dict[str, str] = {}
    for path, checklist in lists.items():
        if "/" not in path:
            beside.update(checklist.entries)
    roots = [path for path in _root_paths(models) if not path.endswith(LIST)]
    files = [Wanted(path, beside.get(path)) for path in roots]
    for model in models:
        files += _model_files(model, lists.get(_list_of(model)))
    return files


def plan_files(
    folder: Path,
    files: Sequence[Wanted],
    probes: Mapping[Wanted, Probe],
    *,
    missing: Sequence[Wanted] = (),
    wrong: Mapping[str, str] | None = None,
) -> Planned:
    """Put down what there is of each file, and what will be fetched.

    Args:
        probes: what the server says of large files.
        missing: what will be fetched, be there something or not.
        wrong: what will be left alone, and why it is wrong.
    """
    plans = []
    for file in files:
        probe = probes.get(file)
        plan = _plan(folder, file, probe.identity.nbytes if probe else None)
        if plan.status == "there" and file in missing:
            plan = FilePlan(file.path, plan.nbytes, "wrong")
        if note := (wrong or {}).get(file.path):
            plan = FilePlan(file.path, plan.nbytes, "left alone", plan.nbytes_there, note)
        plans.append(plan)
    return Planned(tuple(plans), _free_nbytes(folder))


def _plan(folder: Path, file: Wanted, nbytes: int | None) -> FilePlan:
    """Say what there is of a file by its looks, without reading it."""
    path = folder / file.path
    if path.is_file():
        here = path.stat().st_size
        return FilePlan(file.path, here if nbytes is None else nbytes, "there", here)
    size = nbytes if nbytes is not None else file.nbytes or None
    there = min(left_over(path), size) if size else 0
    return FilePlan(file.path, size, "part" if there else "missing", there)


def _root_paths(models: Sequence[Model]) -> list[str]:
    """List the files beside the folders that the models share, each once."""
    paths = [path for model in models for path in (*model.root_files, *model.tokenizer_files)]
    return list(dict.fromkeys(paths))


def _list_of(model: Model) -> str:
    return f"{model.folder}/{MODEL_CHECKLIST}"


def _model_files(model: Model, checklist: Checklist | None) -> list[Wanted]:
    params = f"{model.folder}/params.json"
    if checklist is None:
        shards = [Wanted(path, None, max(1, model.shard_nbytes)) for path in model.shard_paths]
        return [Wanted(params), *shards]
    listed = {f"{model.folder}/{name}": md5 for name, md5 in checklist.entries.items()}
    listed.pop(_list_of(model), None)
    files = [
        Wanted(path, md5, max(1, model.shard_nbytes) if path.endswith(LARGE) else 0)
        for path, md5 in sorted(listed.items())
    ]
    return files if params in listed else [Wanted(params), *files]


def _free_nbytes(folder: Path) -> int:
    """Return how many bytes are free where a folder is or will be."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check(folder: Path, files: Sequence[Wanted], journal: Journal) -> Iterator[Checking | Checked]:
    """Compare the files that are there with their lists; absent ones are passed over.

    Yields:
        ``Checked`` once for each, and how much was read in between.
    """
    to_read: dict[Path, tuple[Wanted, Md5]] = {}
    for file in files:
        path = folder / file.path
        if not path.is_file():
            continue
        size = path.stat().st_size
        if found := impostor(path):
            yield Checked(file.path, size, good=False, note=f"it is {found}", is_page=True)
        elif file.md5 is None or journal.knows(file.path, file.md5):
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
        yield _compared(file, event.path.stat().st_size, md5.hexdigest(), journal)


def _compared(file: Wanted, nbytes: int, found: str, journal: Journal) -> Checked:
    assert file.md5 is not None
    if found == file.md5:
        journal.add(file.path, found)
        return Checked(file.path, nbytes, good=True)
    return Checked(file.path, nbytes, good=False, note=f"expected md5 {file.md5}, found {found}")
