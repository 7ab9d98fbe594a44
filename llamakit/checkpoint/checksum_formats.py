"""Lists of checksums as the tools of Linux, macOS and Windows print them.

``md5sum`` and its like, also with ``--tag``; BSD's ``md5``; ``openssl dgst``; ``rhash``; ``7z h``;
``certutil -hashfile``; PowerShell's ``Get-FileHash`` as a table, as a list and as CSV.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_HEX = r"[0-9a-fA-F]{8,128}"
_ALGORITHM = (
    r"(?:MD[245]|SHA-?[0-9]+(?:[-/][0-9]+)?|BLAKE2[A-Za-z0-9-]*|BLAKE3|CRC[0-9A-Z]*|XXH\w+)"
)
_GNU = re.compile(rf"(\\?)({_HEX}) [ *?^](.+)")
_PLAIN = re.compile(rf"({_HEX})\s+(\S.*)")
_TAGGED = re.compile(rf"(\\?)({_ALGORITHM}) ?\((.+)\) ?= ?({_HEX})", re.IGNORECASE)
_ROW = re.compile(rf"({_ALGORITHM})\s+({_HEX})\s+(\S.*)", re.IGNORECASE)
_COMMENT = re.compile(r"[#;]|//")
_RULE = re.compile(r"[-\s]+")
_POWERSHELL_TABLE = re.compile(r"(Algorithm\s+)?Hash\s+Path\s*", re.IGNORECASE)
_POWERSHELL_FIELD = re.compile(r"(Algorithm|Hash|Path)\s*: ?(.*)", re.IGNORECASE)
_SEVEN_ZIP = re.compile(rf"({_ALGORITHM})\s+Size\s+Name", re.IGNORECASE)
_SEVEN_ZIP_ROW = re.compile(rf"({_HEX})\s+[0-9]+\s+(\S.*)")
_OF = "(?:of|von|de|di|van|do|za|av)(?: file| Datei)?"
_CERTUTIL = re.compile(rf"({_ALGORITHM})\b.*? {_OF} (.+?) ?:", re.IGNORECASE)
"""Such as ``SHA256 hash of params.json:``, in the language of the system."""
_SPACED_HEX = re.compile(r"[0-9a-fA-F]{2}(?: ?[0-9a-fA-F]{2}){3,63}")
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
_LONGEST = 4096
"""Characters of a line: a name has at most 255, and a path before it."""
_CUT_OFF = ("...", "\u2026")


@dataclass(frozen=True)
class Listed:
    """One checksum of a list."""

    line: int
    """Counted from 1."""
    name: str
    digits: str
    algorithm: str = ""
    """As the list says; empty: the number of digits shows it."""
    is_literal: bool = False
    """Whether a backslash is part of the name; else it separates folders, as on Windows."""

    @property
    def is_cut_off(self) -> bool:
        """Whether a table was too narrow for the name."""
        return self.name.endswith(_CUT_OFF)


class UnknownLineError(ValueError):
    """A line that is no checksum, and not part of what a tool writes around them."""

    def __init__(self, number: int, line: str) -> None:
        super().__init__(line)
        self.number, self.line = number, line


def listed_checksums(text: str) -> Iterator[Listed]:
    """Yield the checksums of a list in any of the formats.

    Raises:
        UnknownLineError: a line is none.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if long := next((it for it in enumerate(lines, 1) if len(it[1]) > _LONGEST), None):
        raise UnknownLineError(*long)
    first = next((it for it in lines if it.strip() and not it.startswith("#TYPE")), "")
    if (table := _csv_header(first)) is not None:
        return _csv(lines, *table)
    if any(map(_SEVEN_ZIP.match, lines)):
        return _seven_zip(lines)
    if any(re.match(r"Hash\s*: ", line, re.IGNORECASE) for line in lines):
        return _powershell_list(lines)
    if _CERTUTIL.fullmatch(first.strip()):
        return _certutil(lines)
    return _by_line(lines)


def _by_line(lines: Sequence[str]) -> Iterator[Listed]:
    """Read a checksum from each line, as most tools write them."""
    for number, line in enumerate(lines, 1):
        if not line.strip() or _POWERSHELL_TABLE.fullmatch(line) or _RULE.fullmatch(line):
            continue
        if match := _GNU.fullmatch(line):
            yield _named(number, match[3], match[2], escaped=bool(match[1]))
        elif match := _TAGGED.fullmatch(line):
            yield _named(number, match[3], match[4], match[2], escaped=bool(match[1]))
        elif match := _PLAIN.fullmatch(line):
            yield Listed(number, match[2].rstrip(), match[1])
        elif match := _ROW.fullmatch(line):
            yield Listed(number, match[3].rstrip(), match[2], match[1])
        elif not _COMMENT.match(line):
            raise UnknownLineError(number, line)


def _named(
    number: int, name: str, digits: str, algorithm: str = "", *, escaped: bool = False
) -> Listed:
    """Make an entry; GNU's tools begin a line with a backslash where they have escaped its name."""
    if not escaped:
        return Listed(number, name, digits, algorithm)
    plain = re.sub(r"\\[\\nr]", lambda match: _ESCAPES[match[0]], name)
    return Listed(number, plain, digits, algorithm, is_literal=True)


def _csv_header(line: str) -> tuple[str, list[str]] | None:
    """Return the separator and the columns of PowerShell's ``Export-Csv``."""
    for separator in ",;\t":
        columns = [it.strip().strip('"').lower() for it in line.split(separator)]
        if {"hash", "path"} <= set(columns):
            return separator, columns
    return None


def _csv(lines: Sequence[str], separator: str, columns: list[str]) -> Iterator[Listed]:
    for number, line in enumerate(lines, 1):
        try:
            row = next(csv.reader([line], delimiter=separator), [])
        except csv.Error:
            raise UnknownLineError(number, line) from None
        if not row or line.startswith("#TYPE") or [it.lower() for it in row] == columns:
            continue
        fields = dict(zip(columns, row, strict=False))
        if not re.fullmatch(_HEX, fields.get("hash", "")) or not fields.get("path"):
            raise UnknownLineError(number, line)
        yield Listed(number, fields["path"], fields["hash"], fields.get("algorithm", ""))


def _powershell_list(lines: Sequence[str]) -> Iterator[Listed]:
    """Read ``Format-List``: a line for each field, continued under its value if it is long."""
    fields: dict[str, str] = {}
    last = ""
    for number, line in enumerate([*lines, ""], 1):
        match = _POWERSHELL_FIELD.fullmatch(line)
        if match:
            last = match[1].lower()
            fields[last] = match[2].strip()
        elif line.strip() and last and line.startswith("    "):
            fields[last] += line.strip()
        elif line.strip():
            raise UnknownLineError(number, line)
        elif {"hash", "path"} <= fields.keys():
            yield Listed(number - 1, fields["path"], fields["hash"], fields.get("algorithm", ""))
            fields = {}


def _seven_zip(lines: Sequence[str]) -> Iterator[Listed]:
    """Read the table of ``7z h``, without what is around it and without its total."""
    algorithm = ""
    rules = 0
    for number, line in enumerate(lines, 1):
        if match := _SEVEN_ZIP.match(line):
            algorithm, rules = match[1], 0
        elif algorithm and line.strip() and _RULE.fullmatch(line):
            rules += 1
        elif algorithm and rules == 1 and (match := _SEVEN_ZIP_ROW.fullmatch(line)):
            yield Listed(number, match[2].rstrip(), match[1], algorithm)


def _certutil(lines: Sequence[str]) -> Iterator[Listed]:
    """Read ``certutil -hashfile``: a line with the name, then one with the digits."""
    header: re.Match[str] | None = None
    for number, line in enumerate(map(str.strip, lines), 1):
        if match := _CERTUTIL.fullmatch(line):
            header = match
        elif header and _SPACED_HEX.fullmatch(line):
            yield Listed(number, header[2], line.replace(" ", ""), header[1])
            header = None
        elif line and not line.lower().startswith("certutil"):
            raise UnknownLineError(number, line)
