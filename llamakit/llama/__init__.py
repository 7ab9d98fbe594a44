"""A loaded model as scripts see it, under the names of the reference's package ``llama``.

A script of the reference runs with ``llamakit.llama`` where it says ``llama``: the modules
``generation``, ``model`` and ``tokenizer`` have the reference's names too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamakit.llama.generation import Dialog, Llama
    from llamakit.llama.model import ModelArgs, Transformer
    from llamakit.llama.tokenizer import Tokenizer

__all__ = ["Dialog", "Llama", "ModelArgs", "Tokenizer", "Transformer"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module("llamakit.llama.generation"), name)
    return value
