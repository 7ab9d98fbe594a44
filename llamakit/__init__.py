"""From Meta's Llama link to an answer.

The public names are imported when they are first used, so ``import llamakit`` costs next to
nothing and brings in neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamakit._distribution import __version__
    from llamakit.api import (
        Llama,
        diff,
        download_models,
        export,
        import_checkpoint,
        inspect,
        load_tokenizer,
        open_checkpoint,
        plan_export,
        plan_import,
        plan_quantize,
        plan_reshard,
        quantize,
        reshard,
        to_torch,
        verify,
    )
    from llamakit.errors import LlamakitError
    from llamakit.hookspecs import hookimpl
    from llamakit.llama.generation import (
        ChatFormat,
        ChatPrediction,
        CompletionPrediction,
        Dialog,
        Message,
        ModelArgs,
        Role,
        Tokenizer,
        Transformer,
    )

_OF_META = (
    *("ChatFormat", "ChatPrediction", "CompletionPrediction", "Dialog", "Message", "ModelArgs"),
    *("Role", "Tokenizer", "Transformer"),
)
_ELSEWHERE = {"LlamakitError": "errors", "__version__": "_distribution", "hookimpl": "hookspecs"}
_ELSEWHERE |= dict.fromkeys(_OF_META, "llama.generation")
"""The modules of the names that are not from ``api``."""

__all__ = [
    "ChatFormat",
    "ChatPrediction",
    "CompletionPrediction",
    "Dialog",
    "Llama",
    "LlamakitError",
    "Message",
    "ModelArgs",
    "Role",
    "Tokenizer",
    "Transformer",
    "__version__",
    "diff",
    "download_models",
    "export",
    "hookimpl",
    "import_checkpoint",
    "inspect",
    "load_tokenizer",
    "open_checkpoint",
    "plan_export",
    "plan_import",
    "plan_quantize",
    "plan_reshard",
    "quantize",
    "reshard",
    "to_torch",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_ELSEWHERE.get(name, 'api')}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
