"""Reads ``llamakit.json``, and the ``reshard.json`` of 0.1: bounded, and each value checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from llamakit.checkpoint.provenance import (
    FORMAT,
    MAX_FILES,
    MAX_STEPS,
    PROVENANCE,
    RecordedFile,
    Source,
    Step,
    provenance_path,
)
from llamakit.errors import DamagedFileError, InvalidJSONError
from llamakit.files.json_reader import read_json_file
from llamakit.printable import printable

OLD = "reshard.json"
"""What 0.1 wrote next to shards: their source, and how the embedding is split."""
MAX_NBYTES = 8 << 20
"""A step on a Hugging Face folder of 405B, with its 200 files, has 0.05 MB."""
_MAX_SOURCES, _MAX_OPTIONS, _LONGEST = 100, 1000, 1000
_CHECKSUM = {"md5": re.compile("[0-9a-f]{32}"), "sha256": re.compile("[0-9a-f]{64}")}
_MAX_SIZE = 1 << 60


def read_steps(path: Path) -> list[Step]:
    """Read the history of a checkpoint, the oldest step first.

    Args:
        path: its folder, or its only file.
    Returns:
        The steps; none where nothing was recorded.

    Raises:
        DamagedFileError: the record is damaged, or not one of llamakit's.
    """
    file, old = provenance_path(path), path / OLD
    if file.exists():
        return _Reader(file).steps(_read(file))
    if path.is_file():
        return _steps_of_folder(path)
    return [_Reader(old).old_step(_read(old))] if old.exists() else []


def _steps_of_folder(path: Path) -> list[Step]:
    """Read the history of a file from its folder's record, if that lists it (an export's does)."""
    file = path.with_name(PROVENANCE)
    steps = _Reader(file).steps(_read(file)) if file.exists() else []
    is_listed = steps and path.name in {written.name for written in steps[-1].files}
    return steps if is_listed else []


def _read(file: Path) -> object:
    try:
        return read_json_file(file, max_nbytes=MAX_NBYTES)
    except OSError as error:
        raise DamagedFileError(f"{file} cannot be read: {error.strerror}.") from None
    except InvalidJSONError as error:
        raise DamagedFileError(f"{error}; {_REMEDY}") from None


_REMEDY = "it only says what the checkpoint was made from: remove it to go without."


class _Reader:
    """Checks the values of one file; each refusal names it and the place."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def steps(self, value: object) -> list[Step]:
        values = self._object(value, "it")
        if values.get("format") != FORMAT:
            self._refuse("its 'format'", values.get("format"), repr(FORMAT))
        steps: list[Step] = []
        for index, item in enumerate(self._list(values.get("steps"), "its 'steps'", MAX_STEPS)):
            steps.append(self._step(item, index))
        if not steps:
            self._refuse("its 'steps'", [], "at least one")
        return steps

    def old_step(self, value: object) -> Step:
        """Return what a ``reshard.json`` of 0.1 says as a step."""
        values = self._object(value, "it")
        made_from = self._object(values.get("from", {}), "its 'from'")
        files = self._files(made_from.get("files", []), "its 'from'")
        source = Source(
            self._text(made_from.get("folder", ""), "its 'folder'"),
            self._text(made_from.get("form", ""), "its 'form'"),
            files,
        )
        facts = {key: values[key] for key in values if key not in ("made_by", "from")}
        made_by = self._text(values.get("made_by", ""), "its 'made_by'")
        return Step("reshard", {}, made_by, (source,), (), self._scalars(facts, "it"))

    def _step(self, value: object, index: int) -> Step:
        where = f"its step {index + 1}"
        values = self._object(value, where)
        sources = self._list(values.get("sources"), f"the 'sources' of {where}", _MAX_SOURCES)
        return Step(
            self._text(values.get("command"), f"the 'command' of {where}"),
            self._scalars(values.get("options"), f"the 'options' of {where}"),
            self._text(values.get("made_by"), f"the 'made_by' of {where}"),
            tuple(self._source(item, index, f"a source of {where}") for item in sources),
            self._files(values.get("files"), where),
            self._scalars(values.get("model"), f"the 'model' of {where}"),
        )

    def _source(self, value: object, index: int, where: str) -> Source:
        values = self._object(value, where)
        step = values.get("step")
        if step is not None and not (type(step) is int and 0 <= step < index):
            self._refuse(f"the 'step' of {where}", step, "the index of an earlier step")
        return Source(
            self._text(values.get("name"), f"the 'name' of {where}"),
            self._text(values.get("form"), f"the 'form' of {where}"),
            self._files(values.get("files"), where),
            step,
            self._text(values.get("revision", ""), f"the 'revision' of {where}"),
        )

    def _files(self, value: object, where: str) -> tuple[RecordedFile, ...]:
        items = self._list(value, f"the 'files' of {where}", MAX_FILES)
        return tuple(self._file_entry(item, f"a file of {where}") for item in items)

    def _file_entry(self, value: object, where: str) -> RecordedFile:
        values = self._object(value, where)
        name, nbytes = values.get("name"), values.get("nbytes")
        if not isinstance(name, str) or not _is_inside(name):
            self._refuse(f"the 'name' of {where}", name, "the name of a file in its folder")
        if nbytes is not None and not (type(nbytes) is int and 0 <= nbytes < _MAX_SIZE):
            self._refuse(f"the 'nbytes' of {where}", nbytes, "a number of bytes")
        checksums = []
        for key, pattern in _CHECKSUM.items():
            checksum = values.get(key)
            if checksum is not None:
                if not isinstance(checksum, str) or not pattern.fullmatch(checksum):
                    self._refuse(f"the {key!r} of {where}", checksum, "its hex digits")
                checksums.append(checksum)
        origin = self._text(values.get("from", ""), f"the 'from' of {where}")
        return RecordedFile(name, nbytes, checksums[-1] if checksums else None, origin)

    def _object(self, value: object, where: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self._refuse(where, value, "an object")
        return value

    def _list(self, value: object, where: str, most: int) -> Sequence[object]:
        if not isinstance(value, list) or len(value) > most:
            shown = f"a list of {len(value)}" if isinstance(value, list) else value
            self._refuse(where, shown, f"a list of at most {most}")
        return value

    def _text(self, value: object, where: str) -> str:
        if not isinstance(value, str) or len(value) > _LONGEST or not value.isprintable():
            self._refuse(where, value, f"at most {_LONGEST} printable characters")
        return value

    def _scalars(self, value: object, where: str) -> Mapping[str, Any]:
        """Check an object of strings, numbers, booleans and lists of them."""
        values = self._object(value, where)
        if len(values) > _MAX_OPTIONS:
            self._refuse(where, f"an object of {len(values)}", f"at most {_MAX_OPTIONS}")
        for key, item in values.items():
            self._text(key, f"a key of {where}")
            for one in self._list(item, where, _MAX_OPTIONS) if isinstance(item, list) else [item]:
                if isinstance(one, str):
                    self._text(one, f"{printable(key, 60)!r} in {where}")
                elif not (one is None or isinstance(one, int | float)):
                    self._refuse(f"{printable(key, 60)!r} in {where}", one, "a plain value")
        return values

    def _refuse(self, where: str, value: object, expected: str) -> NoReturn:
        shown = printable(f"{value!r:.80}" if value is not None else "absent", 80)
        raise DamagedFileError(f"{self._file}: {where} is {shown}; expected {expected}. "
                               f"{_REMEDY[0].upper()}{_REMEDY[1:]}")  # fmt: skip


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return (
        0 < len(name) <= _LONGEST
        and name.isprintable()
        and "\\" not in name
        and not name.startswith("/")
        and bool(parts)
        and ".." not in parts
    )
