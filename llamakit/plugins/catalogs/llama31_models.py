"""The models of Llama 3.1 in the download catalog, 405B in three formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import CatalogEntry

SIZES = {
    "8B": ("", 1, 16_060_617_592, ()),
    "70B": ("", 8, 17_640_830_000, ("shard_nbytes",)),
    "405B-bf16-mp8": ("-MP8", 8, 101_470_976_045, ()),
    "405B-bf16-mp16": ("-MP16", 16, 51_268_302_389, ()),
    "405B": ("", 8, 60_903_742_309, ("files",)),
}
"""What the server's folder ends in, how many shards, the bytes of one, and what nobody has compared
with the server. Plain 405B is fp8, as in Meta's own tool."""

FP8_SCALES = tuple(f"fp8_scales_{rank}.pt" for rank in range(8))


@hookimpl
def register_models(models: Registrar[CatalogEntry]) -> None:
    """Offer Llama 3.1: 8B, 70B and 405B, each base and instruct."""
    for size, (suffix, shards, shard_nbytes, unverified) in SIZES.items():
        for kind in ("", "-Instruct"):
            number, _, form = size.partition("-")
            name = f"Llama3.1-{number}{kind}" + (f"-{form}" if form else "")
            hub_name = f"Llama-3.1-{number}{kind}"
            # The second is what Meta's tool asked for before September 2024.
            folders = (f"{hub_name}{suffix}", f"Meta-{hub_name}{suffix}")
            entry: CatalogEntry = {
                "names": (f"meta-llama/{hub_name}", f"meta-llama/Meta-{hub_name}"),
                "folder": name,
                "server_folders": folders,
                "files": ("params.json", "tokenizer.model"),
                "shards": shards,
                "shard_nbytes": shard_nbytes,
                "family": "Llama 3.1",
                "hosts": ("llama3-1.llamameta.net",),
                "root_files": (),
                "tokenizer_files": (),
                "unverified": ("server_folders", *unverified),
            }
            if number == "405B":
                entry["names"] = ()  # the hub's has two forms; fp8 is another there
            if size == "405B":
                entry["files"] = (*entry["files"], *FP8_SCALES)
            form_name = form or ("fp8" if number == "405B" else "")
            title = f"Llama 3.1 {number}{kind.replace('-', ' ')} {form_name}"
            models.register(name, entry, help=title.strip())
