"""The Python API of llamakit: functions that take paths and return values.

Each name is imported when it is first used: what verifies files loads nothing that runs models.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamakit.api.checks import diff, inspect, verify
    from llamakit.api.conversions import (
        edit,
        plan_edit,
        plan_quantize,
        plan_reshard,
        quantize,
        record_provenance,
        reshard,
    )
    from llamakit.api.downloads import download_models
    from llamakit.api.formats import export, import_checkpoint, plan_export, plan_import
    from llamakit.api.opening import load_tokenizer, open_checkpoint, open_for_import, to_torch
    from llamakit.convert.edits import Edits
    from llamakit.llama.chunks import Chunk
    from llamakit.llama.embedding import embed
    from llamakit.llama.llama import ChatPrediction, CompletionPrediction, Llama
    from llamakit.llama.loading import find_tokenizer
    from llamakit.llama.moderation import Moderation, moderate
    from llamakit.llama.replica import open_replica
    from llamakit.llama.sampler_choice import choose_sampling
    from llamakit.llama.score_items import ScoreItem
    from llamakit.llama.scoring import ItemScore, Score, score
    from llamakit.protocols import ToolCommand

_FROM = {
    "api.checks": ("diff", "inspect", "verify"),
    "api.conversions": (
        "edit",
        "plan_edit",
        "plan_quantize",
        "plan_reshard",
        "quantize",
        "record_provenance",
        "reshard",
    ),
    "api.downloads": ("download_models",),
    "api.formats": ("export", "import_checkpoint", "plan_export", "plan_import"),
    "api.opening": ("load_tokenizer", "open_checkpoint", "open_for_import", "to_torch"),
    "convert.edits": ("Edits",),
    "llama.chunks": ("Chunk",),
    "llama.embedding": ("embed",),
    "llama.llama": ("ChatPrediction", "CompletionPrediction", "Llama"),
    "llama.loading": ("find_tokenizer",),
    "llama.moderation": ("Moderation", "moderate"),
    "llama.replica": ("open_replica",),
    "llama.sampler_choice": ("choose_sampling",),
    "llama.score_items": ("ScoreItem",),
    "llama.scoring": ("ItemScore", "Score", "score"),
    "protocols": ("ToolCommand",),
}
_MODULES = {name: module for module, names in _FROM.items() for name in names}

__all__ = [
    "ChatPrediction",
    "Chunk",
    "CompletionPrediction",
    "Edits",
    "ItemScore",
    "Llama",
    "Moderation",
    "Score",
    "ScoreItem",
    "ToolCommand",
    "choose_sampling",
    "diff",
    "download_models",
    "edit",
    "embed",
    "export",
    "find_tokenizer",
    "import_checkpoint",
    "inspect",
    "load_tokenizer",
    "moderate",
    "open_checkpoint",
    "open_for_import",
    "open_replica",
    "plan_edit",
    "plan_export",
    "plan_import",
    "plan_quantize",
    "plan_reshard",
    "quantize",
    "record_provenance",
    "reshard",
    "score",
    "to_torch",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"llamakit.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
