"""Llama Guard and Prompt Guard in the download catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import CatalogEntry

LLAMA31 = ("Llama 3.1", ("llama3-1.llamameta.net",))
LLAMA32 = ("Llama 3.2 1B and 3B", ("llama3-2-lightweight.llamameta.net",))
VISION = ("Llama 3.2 Vision", ("llama3-2-multimodal.llamameta.net",))
LLAMA4: tuple[str, tuple[str, ...]] = ("Llama 4", ())
"""A family, and hosts of its links; Meta sends the link of a guard with that of its family. Which
host serves those of Llama 4 is not known, so ``all`` leaves them out."""

META = ("params.json", "tokenizer.model")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
SAFETENSORS = (
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
)

PROMPT_GUARD_2: CatalogEntry = {
    "files": ("model.safetensors", *TOKENIZER),
    "has_checklist": False,
    "shards": 0,
    "family": LLAMA4[0],
    "hosts": LLAMA4[1],
    "unverified": ("files", "has_checklist", "hosts", "shard_nbytes"),
}

MODELS: dict[str, CatalogEntry] = {
    "Llama-Guard-2-8B": {
        "names": ("meta-llama/Meta-Llama-Guard-2-8B", "meta-llama/Llama-Guard-2-8B"),
        "server_folders": ("llama-guard-2",),
        "shard_nbytes": 16_060_617_592,
        "family": "Llama Guard 2",
        "hosts": ("download5.llamameta.net",),
        "unverified": ("shard_nbytes",),
    },
    "Llama-Guard-3-8B": {
        "shard_nbytes": 16_060_617_592,
        "family": LLAMA31[0],
        "hosts": LLAMA31[1],
        "unverified": ("shard_nbytes",),
    },
    "Llama-Guard-3-8B-int8": {
        "names": ("meta-llama/Llama-Guard-3-8B-INT8",),
        "server_folders": ("Llama-Guard-3-8B-INT8-HF",),
        "files": (*SAFETENSORS, "generation_config.json", *TOKENIZER),
        "shards": 0,
        "family": LLAMA31[0],
        "hosts": LLAMA31[1],
        "unverified": ("files", "shard_nbytes"),
    },
    "Llama-Guard-3-1B": {
        "family": LLAMA32[0],
        "hosts": LLAMA32[1],
        "unverified": ("shard_nbytes",),
    },
    "Llama-Guard-3-1B-int4": {
        "names": ("meta-llama/Llama-Guard-3-1B-INT4",),
        "server_folders": ("Llama-Guard-3-1B-INT4",),
        "files": (*META, "example-prompt.txt", "llama_guard_3_1b_pruned_xnnpack.pte"),
        "shards": 0,
        "family": LLAMA32[0],
        "hosts": LLAMA32[1],
        "unverified": ("files", "shard_nbytes"),
    },
    "Llama-Guard-3-11B-Vision": {
        "family": VISION[0],
        "hosts": VISION[1],
        "unverified": ("hosts", "shard_nbytes"),
    },
    "Llama-Guard-4-12B": {
        "family": LLAMA4[0],
        "hosts": LLAMA4[1],
        "unverified": ("hosts", "shards", "shard_nbytes"),
    },
    "Prompt-Guard-86M": {
        "names": ("Prompt-Guard", "meta-llama/Prompt-Guard-86M"),
        "server_folders": ("Prompt-Guard",),
        "files": ("model.safetensors", *TOKENIZER),
        "has_checklist": False,
        "shards": 0,
        "family": LLAMA31[0],
        "hosts": LLAMA31[1],
        "unverified": ("files", "has_checklist", "shard_nbytes"),
    },
    **dict.fromkeys(("Llama-Prompt-Guard-2-86M", "Llama-Prompt-Guard-2-22M"), PROMPT_GUARD_2),
}


@hookimpl
def register_models(models: Registrar[CatalogEntry]) -> None:
    """Offer Llama Guard 2, 3 and 4, and Prompt Guard."""
    for name, own in MODELS.items():
        entry: CatalogEntry = {
            "names": (f"meta-llama/{name}",),
            "folder": name,
            "files": META,
            "root_files": (),
            "tokenizer_files": (),
            **own,
        }
        models.register(name, entry, help=name.replace("-", " "))
