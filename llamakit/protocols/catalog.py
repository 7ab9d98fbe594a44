"""The models that can be downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

__all__ = [
    "CatalogEntry",
    "CatalogueEntry",
]


class CatalogEntry(TypedDict, total=False):
    """One model that ``llamakit download`` knows. Only ``folder`` has to be there."""

    names: Sequence[str]
    """What else users call it; its registered name and its folder are known anyway."""
    folder: str
    """Where it is, relative to the link and to the output folder, with its checklist.chk."""
    server_folders: Sequence[str]
    """What the folder may be called on the server, if not as on disk; the first found counts."""
    files: Sequence[str]
    """In the folder, fetched even if the checklist does not list them; else ``params.json``."""
    has_checklist: bool
    """False for a folder without checklist.chk: then ``files`` is all that is fetched."""
    unserved_files: Sequence[str]
    """Files that the checklist lists and the server does not have: not fetched, not missed."""
    shards: int
    """How many ``consolidated.NN.pth`` there should be; the checklist decides."""
    shard_nbytes: int
    """About how large one is, for planning, 0 if unknown; the server's own sizes hold."""
    family: str
    """Such as ``Llama 2``; a signed link is good for one family."""
    hosts: Sequence[str]
    """Hosts of the family's signed links. ``all`` means every model that has one."""
    root_files: Sequence[str]
    """Shared files next to the folder; ``LICENSE`` and ``USE_POLICY.md`` if not given."""
    tokenizer_files: Sequence[str]
    """Next to the folder too; ``tokenizer.model`` and ``tokenizer_checklist.chk`` if not given."""
    unverified: Sequence[str]
    """The keys whose values nobody has compared with the server."""


CatalogueEntry = CatalogEntry
"""The name of ``CatalogEntry`` in 0.1."""
