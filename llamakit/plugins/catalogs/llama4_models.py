"""The models of Llama 4 in the download catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import CatalogEntry

MODELS = {
    "Scout-17B-16E": 0,
    "Scout-17B-16E-Instruct": 0,
    "Maverick-17B-128E": 100_458_118_386,
    "Maverick-17B-128E-Instruct": 100_426_653_046,
    "Maverick-17B-128E-Instruct-FP8": 54_121_549_657,
}
"""The bytes of one of the 8 shards, 0 if unknown."""

FP8_SCALES = tuple(f"fp8_scales_{rank}.pt" for rank in range(8))


@hookimpl
def register_models(models: Registrar[CatalogEntry]) -> None:
    """Offer Llama 4: Scout and Maverick, each base and instruct, and Maverick in fp8."""
    for hub_name, shard_nbytes in MODELS.items():
        is_fp8 = hub_name.endswith("-FP8")
        name = f"Llama-4-{hub_name.replace('-FP8', '-fp8')}"
        entry: CatalogEntry = {
            "names": (f"Llama4-{hub_name}", f"meta-llama/Llama-4-{hub_name}"),
            "folder": name,
            "server_folders": (f"Llama-4-{hub_name}",),
            "files": ("params.json", "tokenizer.model", *(FP8_SCALES if is_fp8 else ())),
            "shards": 8,
            "shard_nbytes": shard_nbytes,
            "family": "Llama 4",
            "hosts": ("llama4.llamameta.net",),
            "root_files": (),
            "tokenizer_files": (),
            "unverified": (*(() if shard_nbytes else ("shard_nbytes",)), *("files",) * is_fp8),
        }
        models.register(name, entry, help=f"Llama 4 {hub_name.replace('-', ' ', 1)}")
