"""Which folders and files there are to verify, and what checklists say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llamakit.checkpoint.checklist import MODEL_CHECKLIST, TOKENIZER_CHECKLIST, read_checklist
from llamakit.checkpoint.not_weights import HEAD_NBYTES, describe_not_weights
from llamakit.errors import DamagedFileError
from llamakit.files.regular_file import open_regular

_CHECKLISTS = (MODEL_CHECKLIST, TOKENIZER_CHECKLIST)
_MODEL = ("consolidated*.pth", "params.json", "config.json", "*.safetensors")
_TOKENIZER = ("tokenizer.model", "tokenizer.json")
_NEVER_PAGES = (".pth", ".json", ".chk", ".model", ".safetensors")
"""Files that are no web page, so one that is failed to download."""


@dataclass(frozen=True)
class Folder:
    """A folder to verify."""

    path: Path
    checklists: tuple[str, ...]
    """Those that could be read."""
    expected: Mapping[str, str]
    """The md5 of each file, by name, as the checklists say."""
    unlisted: tuple[str, ...]
    """The other files in it."""
    faults: tuple[str, ...]
    """What is wrong with the checklists."""

    @property
    def has_model(self) -> bool:
        """Whether files of a model are, or should be, in it."""
        listed = any(name.startswith("consolidated") for name in self.expected)
        return listed or _holds(self.path, _MODEL)

    @property
    def is_covered(self) -> bool:
        """Whether a checklist speaks of what is in it: a tokenizer's says nothing of a model."""
        if MODEL_CHECKLIST in self.checklists or not self.has_model:
            return bool(self.checklists)
        return any(name.startswith("consolidated") for name in self.expected)


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


def not_weights_in(path: Path) -> str | None:
    """Say what a file is instead, if it is something that its name rules out."""
    if path.suffix not in _NEVER_PAGES:
        return None
    try:
        with open_regular(path) as file:
            return describe_not_weights(file.read(HEAD_NBYTES))
    except OSError:
        return None


def _is_of_interest(folder: Path) -> bool:
    return _holds(folder, (*_CHECKLISTS, *_MODEL, *_TOKENIZER))


def _holds(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _look_into(folder: Path) -> Folder:
    expected: dict[str, str] = {}
    faults = []
    readable = []
    for name in _CHECKLISTS:
        if not (folder / name).exists():
            continue
        try:
            entries = read_checklist(folder / name).entries
        except DamagedFileError as error:
            faults.append(error.for_commands)
            continue
        readable.append(name)
        faults += _contradictions(folder, expected, entries)
        expected |= entries
    unlisted = tuple(name for name in _files(folder) if name not in expected)
    return Folder(folder, tuple(readable), expected, unlisted, tuple(faults))


def _contradictions(
    folder: Path, first: Mapping[str, str], second: Mapping[str, str]
) -> Iterator[str]:
    for name in first.keys() & second.keys():
        if first[name] != second[name]:
            yield (
                f"{folder}: {' and '.join(_CHECKLISTS)} give {name} different MD5s; "
                "download both lists again."
            )


def _files(folder: Path) -> list[str]:
    return sorted(
        child.name
        for child in folder.iterdir()
        if child.is_file() and child.name not in _CHECKLISTS and not child.name.startswith(".")
    )
