"""The contract of the objects that hooks open and factories return: what each must have."""

from __future__ import annotations

import operator
from typing import Any

_ATTRIBUTES = {
    "open_checkpoint": (
        *("path", "form", "params.dim", "params.context", "parameters.items", "nbytes_read"),
        "read",
    ),
    "load_tokenizer": ("path", "vocab_size", "bos_id", "eos_id", "encode", "decode"),
}
"""By hook: what the object must have; a string, for one, has ``encode`` and is no tokenizer."""

_METHODS = {
    "sampler": (("__call__",), "a function sample(logits, rows)"),
    "processor": (("__call__",), "a function process(logits, rows)"),
    "prompt format": (("encode",), "something with encode(dialog) and stop_tokens"),
    "drafter": (("__call__",), "a function draft(tokens)"),
    "observer": (
        ("layers", "__call__", "result"),
        "something with layers(count), __call__(row, states) and result(row)",
    ),
}
"""By kind: the methods that the object must have, and what was expected, for messages."""


def opened_fault(hook: str, opened: object) -> str:
    """Say what a checkpoint or a tokenizer lacks or has wrong, or nothing.

    Args:
        hook: ``open_checkpoint`` or ``load_tokenizer``.
        opened: what the hook returned.
    """
    missing = [name for name in _ATTRIBUTES[hook] if not _has(opened, name)]
    if missing:
        return f"returned {type(opened).__name__}, without {', '.join(missing)}"
    return tokenizer_fault(opened) if hook == "load_tokenizer" else ""


def tokenizer_fault(tokenizer: Any) -> str:
    """Say what is wrong with the numbers of a tokenizer, or nothing."""
    vocab_size = tokenizer.vocab_size
    if type(vocab_size) is not int or vocab_size < 1:
        return f"has the vocab_size {vocab_size!r:.60}; expected how many tokens there are, an int"
    for name in ("bos_id", "eos_id"):
        token = getattr(tokenizer, name)
        if type(token) is not int or not 0 <= token < vocab_size:
            return f"has the {name} {token!r:.60}; expected an int from 0 to {vocab_size - 1}"
    return ""


def factory_result_fault(kind: str, result: object) -> str:
    """Say what is wrong with the object that a factory returned, or nothing.

    Args:
        kind: of the factory, such as ``sampler``.
    """
    methods, expected = _METHODS.get(kind, ((), ""))
    if all(callable(getattr(result, method, None)) for method in methods):
        return ""
    return f"cannot be used: its factory returned {type(result).__name__}; expected {expected}"


def _has(thing: object, dotted: str) -> bool:
    try:
        operator.attrgetter(dotted)(thing)
    except AttributeError:
        return False
    return True
