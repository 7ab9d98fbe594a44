"""The bundled demo model in the download catalog, for whoever serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import CatalogEntry


@hookimpl
def register_models(models: Registrar[CatalogEntry]) -> None:
    """Offer the bundled demo model; ``all`` leaves it out."""
    entry: CatalogEntry = {
        "folder": "llama-demo",
        "shards": 8,
        "shard_nbytes": 960_000,
        "family": "demonstration",
        "root_files": (),
    }
    models.register("demo", entry, help="the bundled demo model, from a server of your own")
