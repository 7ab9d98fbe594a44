"""The models of Llama 3.2 in the download catalog: text, quantized, and Vision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import CatalogEntry

TEXT, VISION = "Llama 3.2 1B and 3B", "Llama 3.2 Vision"
HOSTS = {
    TEXT: "llama3-2-lightweight.llamameta.net",
    VISION: "llama3-2-multimodal.llamameta.net",
}
"""A link of either is of no use for the other."""

MODELS = {
    "1B": (TEXT, 1, 2_471_680_000),
    "1B-Instruct": (TEXT, 1, 2_471_680_000),
    "3B": (TEXT, 1, 6_425_585_114),
    "3B-Instruct": (TEXT, 1, 6_425_585_114),
    "1B-Instruct-QLORA_INT4_EO8": (TEXT, 1, 0),
    "1B-Instruct-SpinQuant_INT4_EO8": (TEXT, 1, 0),
    "3B-Instruct-QLORA_INT4_EO8": (TEXT, 1, 0),
    "3B-Instruct-SpinQuant_INT4_EO8": (TEXT, 1, 0),
    "11B-Vision": (VISION, 1, 0),
    "11B-Vision-Instruct": (VISION, 1, 0),
    "90B-Vision": (VISION, 8, 0),
    "90B-Vision-Instruct": (VISION, 8, 0),
}
"""Of each its family, how many shards, and the bytes of one, 0 if unknown."""


@hookimpl
def register_models(models: Registrar[CatalogEntry]) -> None:
    """Offer Llama 3.2: 1B and 3B, also quantized, and 11B and 90B Vision."""
    for hub_name, (family, shards, shard_nbytes) in MODELS.items():
        entry: CatalogEntry = {
            "names": (f"meta-llama/Llama-3.2-{hub_name}",),
            "folder": f"Llama3.2-{_descriptor(hub_name)}",
            "server_folders": (f"Llama-3.2-{hub_name}",),
            "files": ("params.json", "tokenizer.model"),
            "unserved_files": ("orig_params.json",),  # in the checklist of 3B, never fetched
            "shards": shards,
            "shard_nbytes": shard_nbytes,
            "family": family,
            "hosts": (HOSTS[family],),
            "root_files": (),
            "tokenizer_files": (),
            "unverified": () if hub_name in ("3B", "3B-Instruct") else ("shard_nbytes",),
        }
        models.register(entry["folder"], entry, help=f"Llama 3.2 {_words(hub_name)}")


def _descriptor(hub_name: str) -> str:
    """Return what Meta's tool calls a model: ``…-QLORA_INT4_EO8`` is ``…-int4-qlora-eo8``."""
    model, quantized, method = hub_name.removesuffix("_INT4_EO8").rpartition("-")
    is_quantized = hub_name.endswith("_INT4_EO8")
    return f"{model}{quantized}int4-{method.lower()}-eo8" if is_quantized else hub_name


def _words(hub_name: str) -> str:
    return _descriptor(hub_name).replace("-", " ", 2)
