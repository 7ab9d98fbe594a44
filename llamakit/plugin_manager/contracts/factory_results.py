"""The contract of factories: the kind of object that each returns."""

from __future__ import annotations

_METHODS = {
    "sampler": ("__call__", "a function sample(logits, rows)"),
    "processor": ("__call__", "a function process(logits, rows)"),
    "prompt format": ("encode", "something with encode(dialog) and stop_tokens"),
    "drafter": ("__call__", "a function draft(tokens)"),
}
"""By kind: a method that the object must have, and what was expected, for messages."""


def factory_result_fault(kind: str, result: object) -> str:
    """Say what is wrong with the object that a factory returned, or nothing.

    Args:
        kind: of the factory, such as ``sampler``.
    """
    method, expected = _METHODS.get(kind, ("", ""))
    if not method or callable(getattr(result, method, None)):
        return ""
    return f"cannot be used: its factory returned {type(result).__name__}; expected {expected}"
