"""The contract of entries of the download catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, get_type_hints

from llamakit.errors import suggestion
from llamakit.protocols import CatalogEntry
from llamakit.testing.world import ContractError


def check_catalogue_entry(entry: CatalogEntry) -> None:
    """Check that an entry of the download catalogue says what llamakit needs to know.

    Args:
        entry: what the plugin registers.

    Raises:
        AssertionError: a key is missing, unknown or of a wrong type; the sentence says which.
    """
    __tracebackhide__ = True
    if not isinstance(entry, Mapping):
        raise ContractError(f"a catalogue entry is a dict, not {type(entry).__name__}")
    types = get_type_hints(CatalogEntry)
    if "folder" not in entry:
        raise ContractError(
            "the catalogue entry has no 'folder': where the model lies, below the link"
        )
    for key, value in entry.items():
        if key not in types:
            raise ContractError(f"a catalogue entry has no key {key!r}{suggestion(key, types)}")
        fault = _fault(types[key], value)
        if fault:
            raise ContractError(f"{key!r} of the catalogue entry is {value!r}: {fault}")
    folder = PurePosixPath(entry["folder"])
    if folder.is_absolute() or ".." in folder.parts or folder == PurePosixPath():
        raise ContractError(
            f"'folder' of the catalogue entry is {entry['folder']!r}: write the "
            "name of a folder below the one that users choose"
        )


def _fault(kind: Any, value: Any) -> str:
    """Say what a value should be, or nothing if it is that."""
    if kind is str:
        return "" if isinstance(value, str) and value else "write a text"
    if kind is int:
        is_count = type(value) is int and value > 0
        return "" if is_count else "write a whole number above 0"
    if isinstance(value, str) or not isinstance(value, Sequence):
        return "write a list of texts"
    is_texts = all(isinstance(item, str) and item for item in value)
    return "" if is_texts else "write a list of texts"
