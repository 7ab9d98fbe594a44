"""Meta's checklist.chk: the md5 of each file of a folder, as ``md5sum`` writes and reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from llamakit.checkpoint.not_weights import HEAD_NBYTES, describe_not_weights
from llamakit.errors import DamagedFileError
from llamakit.files.regular_file import open_regular

MODEL_CHECKLIST = "checklist.chk"
TOKENIZER_CHECKLIST = "tokenizer_checklist.chk"

MAX_NBYTES = 16 << 20
"""No checklist is anywhere near as large."""

_LINE = re.compile(r"([0-9a-fA-F]{32}) [ *](.+)")
_SHOWN = 80
_MAX_NAME_LENGTH = 255
"""Of a name, folders included; no file system takes a longer file name."""


@dataclass(frozen=True)
class Checklist:
    """What a checklist says."""

    path: Path
    entries: Mapping[str, str]
    """By name, relative to the list's folder and without ``./``: 32 lower-case hex digits."""


def read_checklist(path: Path) -> Checklist:
    """Read a checklist. Names may begin with ``./``, lines may end as on Windows.

    Raises:
        DamagedFileError: it cannot be read, is an error page, is empty, has a line that is no
            entry, names a file outside its folder, or gives a file two MD5s.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_NBYTES + 1)
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror}.") from None
    return parse_checklist(data, path)


def parse_checklist(data: bytes, path: Path) -> Checklist:
    """Parse what is in a checklist.

    Args:
        path: where it is from, for messages.
    Raises: as ``read_checklist``.
    """
    entries: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for number, line in enumerate(_decode(data, path).split("\n"), 1):
        if not line.strip():
            continue
        name, md5 = _parse(line.removesuffix("\r"), f"{path}, line {number}")
        if entries.setdefault(name, md5) != md5:
            raise DamagedFileError(
                f"{path} gives {name} one MD5 in line {numbers[name]} and another in line "
                f"{number}; expected one. Download the list again."
            )
        numbers.setdefault(name, number)
    if not entries:
        raise DamagedFileError(f"{path} is empty; expected a line for each file. "
                               "Download it again.")  # fmt: skip
    return Checklist(path, entries)


def format_checklist(entries: Mapping[str, str]) -> str:
    """Write down the md5 of each file, as ``md5sum -c`` and ``read_checklist`` take it.

    Args:
        entries: by name, relative to the list's folder: 32 hex digits.

    Raises:
        ValueError: a name or an MD5 cannot be written.
    """
    lines = []
    for name, md5 in entries.items():
        line = f"{md5}  {name}"
        try:
            written = _parse(line, "the list")
        except DamagedFileError as error:
            raise ValueError(str(error)) from None
        if written != (name, md5):
            raise ValueError(f"{line!r} would be read back as {written}")
        lines.append(f"{line}\n")
    return "".join(lines)


def _decode(data: bytes, path: Path) -> str:
    if problem := describe_not_weights(data[:HEAD_NBYTES]):
        raise DamagedFileError(f"{path} is {problem}; expected a list of MD5 checksums. "
                               "Download it again.")  # fmt: skip
    if len(data) > MAX_NBYTES:
        raise DamagedFileError(
            f"{path} is over {MAX_NBYTES} bytes; expected a list of MD5 checksums."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DamagedFileError(
            f"{path} is not text (byte {error.start}); expected a list of MD5 checksums. "
            "Download it again."
        ) from None


def _parse(line: str, where: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise DamagedFileError(
            f"{where} is {line[:_SHOWN]!r}; expected 32 hex digits, two spaces and a name, as "
            "md5sum writes it. Download the list again."
        )
    md5, name = match.groups()
    return _inside(name, where), md5.lower()


def _inside(name: str, where: str) -> str:
    """Return a name without ``./``, or refuse it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    windows = PureWindowsPath(name)
    if name.startswith("/") or windows.drive or "\\" in name or ".." in parts or not parts:
        raise DamagedFileError(
            f"{where} names {name[:_SHOWN]!r}, which is not inside the list's folder; "
            "nothing outside is read. Download the list again from Meta."
        )
    if not name.isprintable() or len(name) > _MAX_NAME_LENGTH:
        raise DamagedFileError(
            f"{where} names {name[:_SHOWN]!r}, of {len(name)} characters; expected at most "
            f"{_MAX_NAME_LENGTH} printable ones."
        )
    return "/".join(parts)
