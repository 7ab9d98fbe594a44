"""Has what third-party plugins raise name their plugin, unless it is no fault of theirs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from llamakit.errors import LlamakitError
from llamakit.files.disk_errors import is_full_disk
from llamakit.plugin_manager.registry import Entry

OPENED = {
    "open_checkpoint": "checkpoint",
    "load_tokenizer": "tokenizer",
}
"""What the answer of each asking hook is called in messages."""


class attributed:  # noqa: N801 - a context manager reads like a function
    """Have what is raised inside name the plugin of ``entry``.

    What a built-in plugin raises passes as it is, and so does what ``speaks_for_itself``.

    Raises:
        PluginError: a third-party plugin failed.
    """

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._entry.source.builtin or not isinstance(error, (Exception, SystemExit)):
            return
        if not speaks_for_itself(error):
            raise self._entry.failure(error) from error


def guarded(thing: Any, entry: Entry) -> Any:
    """Have what a third-party thing raises name its plugin; a built-in is returned as it is."""
    return thing if entry.source.builtin else _Guarded(thing, entry)


class _Guarded:
    """A third-party sampler, prompt format, tokenizer …: what it raises names the plugin."""

    def __init__(self, wrapped: Any, entry: Entry) -> None:
        self._wrapped = wrapped
        self._entry = entry

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with attributed(self._entry):
            result = self._wrapped(*args, **kwargs)
        return _iterated(result, self._entry) if isinstance(result, Iterator) else result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._wrapped, name)
        return _Guarded(value, self._entry) if inspect.isroutine(value) else value


def _iterated(items: Iterator[Any], entry: Entry) -> Iterator[Any]:
    """Have what an iterator raises later, at any of its items or its end, name the plugin."""
    with attributed(entry):
        yield from items


def speaks_for_itself(error: BaseException) -> bool:
    """Tell whether an error is no fault of the plugin that raises it.

    It is one of llamakit's own, whose message is for the user; one of Click's; a closed pipe; or
    memory or a disk is full.
    """
    return (
        isinstance(error, (LlamakitError, BrokenPipeError))
        or is_out_of_memory(error)
        or is_full_disk(error)
        or _is_clicks(error)
    )


def _is_clicks(error: BaseException) -> bool:
    """Tell whether Click ends a command with it: a usage error, an abort, an exit status."""
    click: Any = sys.modules.get("click")  # not imported: nothing of it can have been raised
    return click is not None and isinstance(
        error, (click.ClickException, click.Abort, click.exceptions.Exit)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out: Python's, or torch's on any device."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )
