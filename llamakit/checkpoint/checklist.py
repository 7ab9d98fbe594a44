"""Lists of checksums: Meta's checklist.chk, and what common tools write beside or instead of it."""

from __future__ import annotations

import ntpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from llamakit.checkpoint.checksum_formats import Listed, UnknownLineError, listed_checksums
from llamakit.checkpoint.not_weights import HEAD_NBYTES, describe_not_weights
from llamakit.errors import DamagedFileError
from llamakit.files.regular_file import open_regular
from llamakit.files.text import as_utf8
from llamakit.printable import printable

MODEL_CHECKLIST = "checklist.chk"
TOKENIZER_CHECKLIST = "tokenizer_checklist.chk"

MAX_NBYTES = 16 << 20
"""No checklist is anywhere near as large."""

KINDS = {32: "MD5", 64: "SHA-256"}
"""By the number of hex digits: the checksums that files are compared with."""
_OTHER_KINDS = {8: "a CRC-32", 40: "a SHA-1", 56: "a SHA-224", 96: "a SHA-384", 128: "a SHA-512"}
_SHOWN = 80
_MAX_NAME_LENGTH = 255
"""Of a name, folders included; no file system takes a longer file name."""
_BINARY = re.compile(r"[\0-\x08\x0e-\x1a\x1c-\x1f]")
_BARE = re.compile(r"\s*[0-9a-fA-F]{32,128}\s*")
_OF_ONE_FILE = (".md5", ".sha256")
"""What ``md5 -q FILE > FILE.md5`` writes: a checksum alone, of the file that its name names."""
_LEVELS = 3
"""How many folders above the files an absolute list may have been made in."""


@dataclass(frozen=True)
class Checklist:
    """What a checklist says."""

    path: Path
    entries: Mapping[str, str]
    """By name, relative to the list's folder and without ``./``: lower-case hex digits, 32 of an
    MD5 or 64 of a SHA-256."""


def kind_of(checksum: str | None) -> str:
    """Return what a checksum is called, by its length; without one, an MD5 is computed."""
    return KINDS[len(checksum)] if checksum else KINDS[32]


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
    """Parse what is in a checklist, as any of the tools of ``checksum_formats`` writes it.

    Args:
        path: where it is from: absolute names are looked for in its folder.
    Raises: as ``read_checklist``.
    """
    try:
        text = _decode(data, path)
        if _BARE.fullmatch(text) and path.suffix.lower() in _OF_ONE_FILE:
            text = f"{text.strip()}  {path.stem}"
        listed = list(listed_checksums(text))
    except UnknownLineError as error:
        raise DamagedFileError(
            f"{path}, line {error.number} is {error.line[:_SHOWN]!r}; expected 32 hex digits, two "
            "spaces and a name, as md5sum writes it, or 64 of a SHA-256. Download the list again."
        ) from None
    if not listed:
        raise DamagedFileError(f"{path} is empty; expected a line for each file. "
                               "Download it again.")  # fmt: skip
    names = _relative([_as_posix(item) for item in listed], listed, path)
    entries: dict[str, str] = {}
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    for item, name in zip(listed, names, strict=True):
        kind, digits = _kind(item, path), item.digits.lower()
        line, first = seen.setdefault((name, kind), (item.line, digits))
        if first != digits:
            raise DamagedFileError(
                f"{path} gives {name} one {kind} in line {line} and another in line {item.line}; "
                "expected one. Download the list again."
            )
        if len(digits) > len(entries.get(name, "")):  # of several, the strongest
            entries[name] = digits
    return Checklist(path, entries)


def format_checklist(entries: Mapping[str, str]) -> str:
    """Write down the checksum of each file, as ``md5sum -c`` and ``read_checklist`` take it.

    Args:
        entries: by name, relative to the list's folder: 32 or 64 hex digits.

    Raises:
        ValueError: a name or a checksum cannot be written.
    """
    lines = []
    for name, digits in entries.items():
        line = f"{digits}  {name}"
        try:
            written = parse_checklist(line.encode("utf-8", "replace"), Path("the list")).entries
        except DamagedFileError as error:
            raise ValueError(str(error)) from None
        if written != {name: digits}:
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
        text = as_utf8(data).decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # a code page of Windows: names of ASCII are the same in all
    if binary := _BINARY.search(text):
        raise DamagedFileError(
            f"{path} is not text (character {binary.start()}); expected a list of MD5 checksums. "
            "Download it again."
        )
    return text


def _kind(item: Listed, path: Path) -> str:
    """Return what a checksum is called.

    Raises:
        DamagedFileError: it is of a kind that files are not compared with.
    """
    kind = KINDS.get(len(item.digits), "")
    said = re.sub(r"SHA-?2?-?(?=256$)", "SHA-", item.algorithm.upper())
    if not kind or (said and said != kind):
        other = said or _OTHER_KINDS.get(len(item.digits), f"of {len(item.digits)} hex digits")
        raise DamagedFileError(
            f"{path}, line {item.line}: the checksum of {printable(item.name, _SHOWN)} is "
            f"{printable(other)}; expected an MD5 of 32 hex digits or a SHA-256 of 64. Make the "
            "list with md5sum or sha256sum, Get-FileHash, or certutil -hashfile FILE SHA256."
        )
    return kind


def _as_posix(item: Listed) -> str:
    return item.name if item.is_literal else item.name.replace("\\", "/")


def _relative(names: Sequence[str], listed: Sequence[Listed], path: Path) -> list[str]:
    """Return names relative to the folder of the list; nothing outside is ever named.

    Tools of Windows list absolute paths. They are of the folder of the list, or of one that has
    been moved here since: then a file of theirs has to be here.
    """
    folder = path.parent.resolve()
    roots = _roots([name for name in names if _is_absolute(name)])
    here = [
        root
        for root in roots
        if PurePosixPath(root) == PurePosixPath(folder.as_posix())
        or any((folder / name.removeprefix(root)).is_file() for name in names if _is_in(name, root))
    ]
    root = here[0] if here else None
    return [
        _inside(
            name.removeprefix(root) if root and _is_in(name, root) else name,
            item,
            f"{path}, line {item.line}",
        )
        for name, item in zip(names, listed, strict=True)
    ]


def _is_absolute(name: str) -> bool:
    return name.startswith("/") or re.match("[A-Za-z]:/", name) is not None


def _is_in(name: str, root: str) -> bool:
    return name.startswith(root) and ".." not in name.split("/")


def _roots(absolute: Sequence[str]) -> list[str]:
    """Return the folder that all absolute names are in, and some above it, each with a ``/``."""
    if not absolute:
        return []
    folders = [name.rpartition("/")[0] + "/" for name in absolute]
    common = folders[0]
    while not all(folder.startswith(common) for folder in folders):
        common = common.rstrip("/").rpartition("/")[0] + "/"
        if common == "/":
            break
    roots = []
    for _ in range(_LEVELS):
        roots.append(common)
        common = common.rstrip("/").rpartition("/")[0] + "/"
    return roots


def _inside(name: str, item: Listed, where: str) -> str:
    """Return a name without ``./``, or refuse it."""
    if item.is_cut_off:
        raise DamagedFileError(
            f"{where} names {name[:_SHOWN]!r}, which a narrow table has cut off; write the list "
            "with | Format-List or | Export-Csv."
        )
    parts = [part for part in name.split("/") if part not in ("", ".")]
    drive = ntpath.splitdrive(name)[0]
    if name.startswith("/") or drive or "\\" in name or ".." in parts or not parts:
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
