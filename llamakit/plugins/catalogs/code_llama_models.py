"""The models of Code Llama in the download catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import CatalogEntry

SHARDS = {"7b": 1, "13b": 2, "34b": 4, "70b": 8}


@hookimpl
def register_models(models: Registrar[CatalogEntry]) -> None:
    """Offer Code Llama: 7B, 13B, 34B and 70B, each plain, Python and Instruct."""
    for size, shards in SHARDS.items():
        for kind in ("", "-Python", "-Instruct"):
            name = f"CodeLlama-{size}{kind}"
            entry: CatalogEntry = {
                "names": (f"codellama/{name}", f"meta-llama/{name}", f"Code-Llama-{size}{kind}"),
                "folder": name,
                "files": ("params.json", "tokenizer.model"),
                "shards": shards,
                "family": "Code Llama",
                "hosts": ("download2.llamameta.net",),
                "tokenizer_files": (),
                "unverified": ("shard_nbytes",),
            }
            title = f"Code Llama {size.upper()}{kind.replace('-', ' ')}"
            models.register(name, entry, help=title)
