"""Finds the file that a browser or an operating system has saved under another name."""

from __future__ import annotations

import re
from pathlib import Path

from llamakit.printable import printable

_UNFINISHED = {
    "crdownload": "Chrome or Edge",
    "part": "Firefox",
    "download": "Safari",
    "opdownload": "Opera",
    "partial": "Internet Explorer",
    "aria2": "aria2",
    "incomplete": "huggingface_hub",
    "filepart": "WinSCP",
    "!qb": "qBittorrent",
    "tmp": "another program",
}
_ENDS = re.compile(r"(.+)\.({})".format("|".join(map(re.escape, _UNFINISHED))), re.IGNORECASE)
_FIREFOX = re.compile(r"(.+)\.[A-Za-z0-9_-]{8}(\.[a-z]+)?\.part")
_COPY = re.compile(
    r"(?:Copy of )?(.+?)(?: ?\([0-9]{1,3}\)| - Copy| copy(?: [0-9]+)?)?(\.[A-Za-z]{1,12})",
    re.IGNORECASE,
)
_ADDED = re.compile(r"(.+)\.(txt|html?|json|zip|bin|dms|xml)", re.IGNORECASE)
_MOST_FILES = 10_000


def hint_at_misnamed(path: Path) -> str:
    """Return a sentence about the file that is meant by ``path``, under another name; else ``""``.

    Args:
        path: of the file that is not there.
    """
    if not path.parent.is_dir():
        return ""
    for number, other in enumerate(path.parent.iterdir()):
        if number == _MOST_FILES:
            break
        if hint := _hint(other.name, path.name):
            return f" {printable(str(other))} is there: {hint}"
    return ""


def is_unfinished(name: str) -> bool:
    """Tell whether a file is a download that its program has not finished, by its name."""
    return _ENDS.fullmatch(name) is not None


def plain_name(name: str) -> str:
    """Return what a file would be called without the marks of browsers and copies."""
    if match := _FIREFOX.fullmatch(name) or _ENDS.fullmatch(name):
        name = match[1] + (match[2] or "" if match.re is _FIREFOX else "")
    match = _COPY.fullmatch(name)
    return (match[1] + match[2] if match else name).lower()


def _hint(name: str, wanted: str) -> str:
    if name == wanted:
        return ""
    unfinished = _ENDS.fullmatch(name)
    if unfinished and plain_name(name) == wanted.lower():
        program = _UNFINISHED[unfinished[2].lower()]
        return f"a download that {program} has not finished; finish it, or download the file again."
    added = _ADDED.fullmatch(name)
    if plain_name(name) == wanted.lower() or (added and plain_name(added[1]) == wanted.lower()):
        return f"rename it to {wanted}, if it is the file that is meant."
    return ""
