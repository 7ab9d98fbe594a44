"""Checks an entry of the download catalog."""

from __future__ import annotations

from llamakit.plugin_manager.contracts.catalog_entries import catalog_entry_fault
from llamakit.protocols import CatalogEntry
from llamakit.testing.process_state import check_fault


def check_catalogue_entry(entry: CatalogEntry) -> None:
    """Check that an entry of the download catalog says what llamakit needs to know.

    Args:
        entry: what the plugin registers.

    Raises:
        AssertionError: a key is missing, unknown or of a wrong type; the sentence says which.
    """
    __tracebackhide__ = True
    check_fault("the catalog entry", catalog_entry_fault(entry))
