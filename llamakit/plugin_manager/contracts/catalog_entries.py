"""The contract of entries of the download catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, get_type_hints

from llamakit.errors import suggestion
from llamakit.protocols import CatalogEntry


def catalog_entry_fault(entry: Any) -> str:
    """Say what is wrong with an entry of the download catalog, or nothing.

    Args:
        entry: should be a ``CatalogEntry``.
    """
    if not isinstance(entry, Mapping):
        return f"is a {type(entry).__name__}; expected a dict with the keys of CatalogEntry"
    types = get_type_hints(CatalogEntry)
    if "folder" not in entry:
        return "has no 'folder'; expected where the model is, relative to the link"
    for key, value in entry.items():
        if key not in types:
            return f"has no key {key!r} in its contract{suggestion(str(key), types)}"
        if expected := _expected(types[key], value):
            return f"has {value!r:.60} as {key!r}; expected {expected}"
    for key in ("folder", "server_folders", "files", "root_files", "tokenizer_files"):
        paths = [entry[key]] if key == "folder" else entry.get(key, ())
        if not all(map(is_inside, paths)):
            return f"has {entry[key]!r:.60} as {key!r}; expected a path inside the output folder"
    return ""


def _expected(kind: Any, value: Any) -> str:
    """Say what a value should be, or nothing if it is that."""
    if kind is str:
        return "" if isinstance(value, str) and value else "a string, not an empty one"
    if kind is bool:
        return "" if isinstance(value, bool) else "True or False"
    if kind is int:
        return "" if type(value) is int and value >= 0 else "a whole number, 0 if unknown"
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if is_list and all(isinstance(item, str) and item for item in value):
        return ""
    return "a list of strings, none of them empty"


def is_inside(path: str) -> bool:
    """Tell whether a path from elsewhere stays in the folder that it is relative to."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts
