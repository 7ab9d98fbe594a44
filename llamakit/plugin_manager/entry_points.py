"""Finds the installed plugins by reading the ``entry_points.txt`` files on ``sys.path``.

``importlib.metadata`` finds the same and a test holds the two equal; importing it would take
as long as the rest of ``llamakit --help``. It is asked only where a plain folder does not do:
for zips and eggs, and when something other than Python's own finder finds distributions.
"""

# ruff: noqa: PTH116, PTH118, PTH119, PTH123, PTH208 - pathlib takes longer to import than all the work here
from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class EntryPoint(NamedTuple):
    """One line of an ``entry_points.txt``, and the distribution that it belongs to."""

    name: str
    module: str
    """Empty: the line does not name one."""
    attr: str
    """What follows the colon, such as ``main`` in ``llamakit.cli.main:main``; empty: the module."""
    package: str
    version: str


def find_entry_points(group: str, path: Iterable[str] | None = None) -> list[EntryPoint]:
    """Find what is installed under ``group``.

    Of two distributions of one name the first on the path counts, as when importing.

    Args:
        group: such as ``"llamakit"``.
        path: folders and zips to search; ``sys.path`` if None.
    Returns:
        In the order of the path, then of the distributions' names, then of each file's lines.
    """
    if path is None:
        if _has_another_finder():
            return list(_ask_importlib(group))
        path = sys.path
    entry_points: list[EntryPoint] = []
    seen: set[str] = set()
    for place in dict.fromkeys(entry for entry in path if isinstance(entry, str)):
        try:
            distributions = _distributions_in(place or ".")
        except NotADirectoryError:
            entry_points += _ask_importlib(group, path=[place], seen=seen)
            continue
        except OSError:
            continue
        for key, folder in distributions:
            if key not in seen:
                seen.add(key)
                entry_points += _read(folder, group)
    return entry_points


def find_metadata(name: str) -> str | None:
    """Return where the metadata of an installed distribution is, if a folder on the path has it.

    Args:
        name: as installers compare it: lower case, ``_`` between words.
    """
    for place in dict.fromkeys(entry for entry in sys.path if isinstance(entry, str)):
        try:
            distributions = _distributions_in(place or ".")
        except OSError:
            continue
        for key, folder in distributions:
            if key == name:
                return folder
    return None


def _distributions_in(place: str) -> list[tuple[str, str]]:
    """List the distributions that a folder of ``sys.path`` holds.

    Returns:
        The name of each as installers compare it, and its folder, in the order of the names.
    """
    return _listed(place, os.stat(place).st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _listed(place: str, _changed: int) -> list[tuple[str, str]]:
    """List a folder once, until something is installed into it or taken away: two callers ask."""
    in_egg = place.lower().endswith(".egg")
    distributions = []
    for child in os.listdir(place):
        name = child.lower()
        if name.endswith((".dist-info", ".egg-info")):
            if not name.startswith("~"):  # what pip leaves of an uninstallation cut short
                distributions.append((_key(_stem(name)[0]), os.path.join(place, child)))
        elif in_egg and name == "egg-info":
            folder = os.path.join(place, child)
            distributions.append((_key(_header(folder)[0]), folder))
    return sorted(distributions)


def _key(name: str) -> str:
    """Return a distribution's name as installers compare it."""
    parts = name.lower().replace("-", "_").replace(".", "_").split("_")
    return "_".join(filter(None, parts))


def _stem(folder: str) -> tuple[str, str]:
    """Return the name and the version in a folder's name, such as ``pack-1.0.dist-info``."""
    name, _, version = folder.rpartition(".")[0].partition("-")
    return name, version


def _read(folder: str, group: str) -> list[EntryPoint]:
    """Read what the distribution in ``folder`` has under ``group``."""
    lines = _section(_text(os.path.join(folder, "entry_points.txt")), group)
    if not lines:
        return []
    package, version = _header(folder)
    return [_entry_point(line, package, version) for line in lines]


def _section(text: str, group: str) -> list[str]:
    """Return the lines of an ``entry_points.txt`` below ``[group]``."""
    lines = []
    section = ""
    for line in map(str.strip, text.splitlines()) if f"[{group}]" in text else ():
        if line.startswith("[") and line.endswith("]"):
            section = line.strip("[]")
        elif section == group and line and not line.startswith("#"):
            lines.append(line)
    return lines


def _entry_point(line: str, package: str, version: str) -> EntryPoint:
    """Take ``name = module:attr [extra]`` apart."""
    name, _, value = line.partition("=")
    module, _, attr = value.partition("[")[0].partition(":")
    return EntryPoint(name.strip(), module.strip(), attr.strip(), package, version)


def _header(folder: str) -> tuple[str, str]:
    """Return the name and the version of a distribution, from its metadata's first lines."""
    name, version = _stem(os.path.basename(folder))
    fields = {"name": name, "version": version}
    text = _text(os.path.join(folder, "METADATA")) or _text(os.path.join(folder, "PKG-INFO"))
    for line in text.splitlines():
        if not line:
            break
        key, _, value = line.partition(":")
        fields[key.lower()] = value.strip()
    return fields["name"], fields["version"]


def _text(file: str) -> str:
    """Return a file's text, or nothing if there is none to read."""
    try:
        with open(file, "rb", buffering=0) as raw:  # quicker than a file opened as text
            return raw.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def _has_another_finder() -> bool:
    """Tell whether something other than Python's own ``PathFinder`` finds distributions."""
    return any(
        hasattr(finder, "find_distributions")
        and getattr(finder, "__module__", "") != "_frozen_importlib_external"
        for finder in sys.meta_path
    )


def _ask_importlib(
    group: str, *, path: list[str] | None = None, seen: set[str] | None = None
) -> Iterator[EntryPoint]:
    """Yield what ``importlib.metadata`` finds, on ``path`` or anywhere."""
    from importlib.metadata import distributions

    seen = set() if seen is None else seen
    where: dict[str, Any] = {} if path is None else {"path": path}
    for distribution in distributions(**where):
        package = distribution.metadata["Name"]
        if package and _key(package) not in seen:
            seen.add(_key(package))
            for line in _section(distribution.read_text("entry_points.txt") or "", group):
                yield _entry_point(line, package, distribution.version)
