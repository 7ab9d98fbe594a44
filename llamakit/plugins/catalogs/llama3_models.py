"""The models of Llama 3 in the download catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import CatalogEntry

SIZES = {
    "8B": (1, 16_060_617_592, ()),
    "70B": (8, 17_640_830_000, ("shard_nbytes",)),
}
"""How many shards, the bytes of one, and what nobody has compared with the server."""


@hookimpl
def register_models(models: Registrar[CatalogEntry]) -> None:
    """Offer Llama 3: 8B and 70B, each base and instruct."""
    for size, (shards, shard_nbytes, unverified) in SIZES.items():
        for kind, trained in (("", "pre_trained"), ("-Instruct", "instruction_tuned")):
            name = f"Llama-3-{size}{kind}"
            entry: CatalogEntry = {
                "names": (f"Llama3-{size}{kind}", f"meta-llama/Meta-{name}"),
                "folder": name,
                # The first is what Llama 3's own script asks for, the others what Meta's tools do.
                "server_folders": (f"{size.lower()}_{trained}", name, f"Meta-{name}"),
                "files": ("params.json", "tokenizer.model"),
                "shards": shards,
                "shard_nbytes": shard_nbytes,
                "family": "Llama 3",
                "hosts": ("download6.llamameta.net",),
                "root_files": (),
                "tokenizer_files": (),
                "unverified": ("server_folders", *unverified),
            }
            models.register(name, entry, help=f"Llama 3 {size}{kind.replace('-', ' ')}")
