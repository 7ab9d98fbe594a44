"""Which folders and files there are to verify, and what checklists say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamakit.checkpoint.checklist import (
    MODEL_CHECKLIST,
    TOKENIZER_CHECKLIST,
    kind_of,
    read_checklist,
)
from llamakit.checkpoint.not_weights import HEAD_NBYTES, describe_not_weights
from llamakit.checkpoint.provenance import PROVENANCE, Step, provenance_path
from llamakit.checkpoint.provenance_reader import read_steps
from llamakit.errors import DamagedFileError
from llamakit.files.regular_file import open_regular

_CHECKLISTS = (MODEL_CHECKLIST, TOKENIZER_CHECKLIST)
_OTHER_LISTS = re.compile(
    r"((md5|sha256)sums?|checksums?)(\.txt)?|.+\.(md5|sha256)|(tokenizer_)?checklist\.chk\.txt",
    re.IGNORECASE,
)
"""What people call the lists that they have made themselves."""
_MODEL = ("consolidated*.pth", "params.json", "config.json", "*.safetensors")
_TOKENIZER = ("tokenizer.model", "tokenizer.json")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_NEVER_PAGES = (".pth", ".json", ".chk", ".model", ".safetensors")
"""Files that are no web page, so one that is failed to download."""


@dataclass(frozen=True)
class Folder:
    """A folder to verify."""

    path: Path
    checklists: tuple[str, ...]
    """Those that could be read."""
    expected: Mapping[str, str]
    """The MD5 or SHA-256 of each file, by name, as the checklists say."""
    unlisted: tuple[str, ...]
    """The other files in it."""
    faults: tuple[str, ...]
    """What is wrong with the checklists."""
    history: tuple[Step, ...] = ()
    """What its llamakit.json says that it was made from."""

    @property
    def root(self) -> Path:
        """Where its files are: of a checkpoint that is one file, the folder around it."""
        return self.path.parent if self.path.is_file() else self.path

    @property
    def has_model(self) -> bool:
        """Whether files of a model are, or should be, in it."""
        listed = any(name.startswith("consolidated") for name in self.expected)
        return listed or _holds(self.path, _MODEL)

    @property
    def is_covered(self) -> bool:
        """Whether a list speaks of what is in it: a tokenizer's says nothing of a model."""
        if MODEL_CHECKLIST in self.checklists or not self.has_model:
            return bool(self.checklists)
        weights = [name for name in self.expected if _is_of_weights(name)]
        return bool(weights) and not any(map(_is_of_weights, self.unlisted))


def find_folders(path: Path) -> list[Folder]:
    """List what there is to verify at a path: the folder itself, and models one below.

    Args:
        path: the folder of a model, one that holds several, or one with a tokenizer.
    Returns:
        None, if there is nothing of the kind.
    """
    if not path.is_dir():
        return []
    inside = sorted(child for child in path.iterdir() if child.is_dir() and _is_of_interest(child))
    own = [path] if _is_of_interest(path) else []
    return [_look_into(folder) for folder in [*own, *inside]]


def checkpoint_folder(path: Path) -> Folder:
    """Return what there is to verify of a checkpoint that only a plugin knows.

    Args:
        path: its folder, or its only file, of which the record next to it has the checksum.
    """
    faults: list[str] = []
    history = _history(path, faults)
    recorded = _recorded(history)
    expected = {path.name: recorded[path.name]} if path.name in recorded else {}
    if path.is_dir():
        expected = recorded
    names = (provenance_path(path).name,) if expected else ()
    return Folder(path, names, expected, (), tuple(faults), tuple(history))


def not_weights_in(path: Path) -> str | None:
    """Say what a file is instead, if it is something that its name rules out."""
    if path.suffix not in _NEVER_PAGES:
        return None
    try:
        with open_regular(path) as file:
            return describe_not_weights(file.read(HEAD_NBYTES))
    except OSError:
        return None


def _is_of_weights(name: str) -> bool:
    return name.startswith("consolidated") or name.endswith(_WEIGHTS)


def _is_of_interest(folder: Path) -> bool:
    return _holds(folder, (*_CHECKLISTS, *_MODEL, *_TOKENIZER))


def _holds(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _look_into(folder: Path) -> Folder:
    expected: dict[str, str] = {}
    faults = []
    readable = []
    for name in _lists(folder):
        try:
            entries = read_checklist(folder / name).entries
        except DamagedFileError as error:
            faults.append(error.for_commands)
            continue
        readable.append(name)
        faults += _contradictions(folder, expected, entries)
        for file, checksum in entries.items():  # of two kinds, the stronger
            expected[file] = max(expected.get(file, ""), checksum, key=len)
    history = _history(folder, faults)
    recorded = _recorded(history)
    if recorded:
        readable.append(PROVENANCE)
        faults += _contradictions(folder, expected, recorded)
        expected = recorded | expected
    unlisted = tuple(name for name in _files(folder) if name not in expected and name != PROVENANCE)
    return Folder(folder, tuple(readable), expected, unlisted, tuple(faults), tuple(history))


def _recorded(history: Sequence[Step]) -> dict[str, str]:
    """Return the checksums of what the last step wrote, by name."""
    written = history[-1].files if history else ()
    return {file.name: file.checksum for file in written if file.checksum}


def _history(folder: Path, faults: list[str]) -> list[Step]:
    try:
        return read_steps(folder)
    except DamagedFileError as error:
        faults.append(error.for_commands)
        return []


def _lists(folder: Path) -> list[str]:
    """Return the names of the lists of checksums in a folder, Meta's first."""
    metas = [name for name in _CHECKLISTS if (folder / name).exists()]
    others = (it.name for it in folder.iterdir() if it.is_file() and _is_own_list(it.name))
    return metas + sorted(others)


def _is_own_list(name: str) -> bool:
    return _OTHER_LISTS.fullmatch(name) is not None


def _contradictions(
    folder: Path, first: Mapping[str, str], second: Mapping[str, str]
) -> Iterator[str]:
    for name in first.keys() & second.keys():
        if len(first[name]) == len(second[name]) and first[name] != second[name]:
            yield (
                f"{folder}: its lists give {name} different {kind_of(first[name])}s; "
                "download both lists again."
            )


def _files(folder: Path) -> list[str]:
    lists = _lists(folder)
    return sorted(
        child.name
        for child in folder.iterdir()
        if child.is_file() and child.name not in lists and not child.name.startswith(".")
    )
