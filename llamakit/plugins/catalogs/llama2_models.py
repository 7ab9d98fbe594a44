"""The models of Llama 2 in the download catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import CatalogEntry

SIZES = {"7B": (1, 13_476_925_163), "13B": (2, 13_016_334_699), "70B": (8, 17_246_706_245)}
"""How many shards, and the bytes of one."""


@hookimpl
def register_models(models: Registrar[CatalogEntry]) -> None:
    """Offer Llama 2: 7B, 13B and 70B, each plain and chat."""
    for size, (shards, shard_nbytes) in SIZES.items():
        for kind in ("", "-chat"):
            name = f"{size}{kind}".lower()
            entry: CatalogEntry = {
                "names": (f"llama2-{name}", f"meta-llama/Llama-2-{name}"),
                "folder": f"llama-2-{name}",
                "shards": shards,
                "shard_nbytes": shard_nbytes,
                "family": "Llama 2",
                "hosts": ("download.llamameta.net",),
            }
            models.register(f"{size}{kind}", entry, help=f"Llama 2 {size}{kind.replace('-', ' ')}")
