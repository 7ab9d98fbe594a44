"""The contract of what hooks open: checkpoints and tokenizers."""

from __future__ import annotations

import operator

_ATTRIBUTES = {
    "open_checkpoint": (
        *("path", "form", "params.dim", "params.context", "parameters.items", "nbytes_read"),
        "read",
    ),
    "load_tokenizer": ("path", "vocab_size", "bos_id", "eos_id", "encode", "decode"),
}
"""By hook: what the object must have; a string, for one, has ``encode`` and is no tokenizer."""


def opened_fault(hook: str, opened: object) -> str:
    """Say what a checkpoint or a tokenizer lacks, or nothing.

    Args:
        hook: ``open_checkpoint`` or ``load_tokenizer``.
        opened: what the hook returned.
    """
    missing = [name for name in _ATTRIBUTES[hook] if not _has(opened, name)]
    return f"returned {type(opened).__name__}, without {', '.join(missing)}" if missing else ""


def _has(thing: object, dotted: str) -> bool:
    try:
        operator.attrgetter(dotted)(thing)
    except AttributeError:
        return False
    return True
