"""The model of Llama 3.3 in the download catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import CatalogEntry


@hookimpl
def register_models(models: Registrar[CatalogEntry]) -> None:
    """Offer Llama 3.3 70B Instruct."""
    entry: CatalogEntry = {
        "names": ("meta-llama/Llama-3.3-70B-Instruct", "Llama3.3-70B"),
        "folder": "Llama3.3-70B-Instruct",
        "server_folders": ("Llama-3.3-70B-Instruct",),
        "files": ("params.json", "tokenizer.model"),
        "shards": 8,
        "shard_nbytes": 17_640_830_000,
        "family": "Llama 3.3",
        "hosts": ("llama3-3.llamameta.net",),
        "root_files": (),
        "tokenizer_files": (),
        "unverified": ("shard_nbytes",),
    }
    models.register("Llama3.3-70B-Instruct", entry, help="Llama 3.3 70B Instruct")
