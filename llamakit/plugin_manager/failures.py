"""Has what strangers' things raise name their plugin; looks at what their hooks open."""

from __future__ import annotations

import errno
import inspect
import operator
from typing import Any

from llamakit.errors import LlamakitError
from llamakit.plugin_manager.registry import Entry

OPENED = {
    "open_checkpoint": "checkpoint",
    "load_tokenizer": "tokenizer",
}
"""What the answer of each asking hook is called in messages."""
_ATTRIBUTES = {
    "open_checkpoint": (
        *("path", "form", "params.dim", "params.context", "parameters.items", "nbytes_read"),
        "read",
    ),
    "load_tokenizer": ("path", "vocab_size", "bos_id", "eos_id", "encode", "decode"),
}
"""What it must have: a text, for one, has ``encode`` and is no tokenizer."""


def check_opened(hook: str, opened: object) -> None:
    """Check that what a plugin has opened looks like it.

    Args:
        hook: ``open_checkpoint`` or ``load_tokenizer``.
    Raises:
        TypeError: it lacks some attribute.
    """
    missing = [name for name in _ATTRIBUTES[hook] if not _has(opened, name)]
    if missing:
        raise TypeError(f"it returned {type(opened).__name__}, without {', '.join(missing)}")


def _has(thing: object, dotted: str) -> bool:
    try:
        operator.attrgetter(dotted)(thing)
    except AttributeError:
        return False
    return True


def guarded(thing: Any, entry: Entry) -> Any:
    """Have what a stranger's thing raises name its plugin; a built-in's is returned as it is."""
    return thing if entry.source.builtin else _Guarded(thing, entry)


class _Guarded:
    """A stranger's sampler, prompt format, tokenizer …: what it raises names the plugin."""

    def __init__(self, made: Any, entry: Entry) -> None:
        self._made = made
        self._entry = entry

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._made(*args, **kwargs)
        except (Exception, SystemExit) as error:
            if isinstance(error, LlamakitError) or is_out_of_memory(error) or _is_full(error):
                raise
            raise self._entry.failure(error) from error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._made, name)
        return _Guarded(value, self._entry) if inspect.isroutine(value) else value


def _is_full(error: BaseException) -> bool:
    """Tell whether a disk is full, which is nobody's fault."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out: Python's, or torch's on any device."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )
