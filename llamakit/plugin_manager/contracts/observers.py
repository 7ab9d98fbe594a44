"""The contract of observers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llamakit.plugin_manager.registry import Entry
from llamakit.protocols import FINAL_STATES

if TYPE_CHECKING:
    from llamakit.protocols import HiddenStates, Observer, Row

_ENDING = re.compile(r"[a-z][a-z0-9]{0,15}")
_DEEPEST = 32
"""Lists within lists of a result; JSON has no limit, its readers have."""


def layers_fault(layers: Any, count: int) -> str:
    """Say what is wrong with the layers that an observer wants to read, or nothing.

    Args:
        count: how many layers the model has.
    """
    is_list = isinstance(layers, Sequence) and bool(layers) and not isinstance(layers, str)
    if is_list and all(type(it) is int and FINAL_STATES <= it <= count for it in layers):
        return ""
    return (
        f"wants to read the layers {layers!r:.60}; expected a list of ints from {FINAL_STATES}, "
        f"the final norm's, to {count}, the last layer's"
    )


def result_fault(result: Any) -> str:
    """Say what is wrong with what an observer has found, or nothing."""
    bad = _not_json(result, _DEEPEST)
    if not bad:
        return ""
    return (
        f"returned a result with {bad}; expected what JSON can hold: finite numbers, strings, "
        "None, lists, and dicts whose keys are strings"
    )


def files_fault(files: Any) -> str:
    """Say what is wrong with the files that an observer has made, or nothing."""
    if not isinstance(files, Mapping):
        return f"made the files {files!r:.60}; expected a dict of contents by ending"
    for ending, content in files.items():
        if not isinstance(ending, str) or not _ENDING.fullmatch(ending) or ending == "json":
            return (
                f"made a file with the ending {ending!r:.60}; expected small letters and digits, "
                "such as svg, and not json, which its result has"
            )
        if not isinstance(content, str | bytes) or not _is_text(content):
            return f"made a {ending} file of {type(content).__name__}; expected text or bytes"
    return ""


def checked_observer(observer: Observer, entry: Entry) -> Observer:
    """Wrap a third-party observer in checks of what it returns; built-ins are tested."""
    return observer if entry.source.builtin else _CheckedObserver(observer, entry)


class _CheckedObserver:
    """A third-party observer whose results are what JSON can hold."""

    def __init__(self, observer: Observer, entry: Entry) -> None:
        self._observer = observer
        self._entry = entry

    def layers(self, count: int) -> Sequence[int]:
        layers = self._observer.layers(count)
        self._refuse(layers_fault(layers, count))
        return layers

    def __call__(self, row: Row, states: HiddenStates, /) -> None:
        self._observer(row, states)

    def result(self, row: Row, /) -> Any:
        result = self._observer.result(row)
        self._refuse(result_fault(result))
        return result

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._observer, name)
        return partial(self._checked_files, value) if name == "files" else value

    def _checked_files(self, draw: Callable[[Any], Any], result: Any) -> Any:
        files = draw(result)
        self._refuse(files_fault(files))
        return files

    def _refuse(self, fault: str) -> None:
        if fault:
            raise self._entry.breach(fault)


def _not_json(value: Any, depth: int) -> str:
    """Name the first part of a value that JSON cannot hold; empty where there is none."""
    if isinstance(value, dict):
        keys = (f"the key {key!r:.40}" for key in value if not isinstance(key, str))
        return next(keys, "") or _not_json([*value, *value.values()], depth)
    if isinstance(value, list | tuple):
        if depth == 0:
            return f"lists within lists, over {_DEEPEST}"
        return next(filter(None, (_not_json(it, depth - 1) for it in value)), "")
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"the number {value}"
    if isinstance(value, str):
        return "" if _is_text(value) else "half of a surrogate pair"
    return "" if value is None or isinstance(value, int) else type(value).__name__


def _is_text(content: str | bytes) -> bool:
    try:
        return isinstance(content, bytes) or bool(content.encode() or True)
    except UnicodeEncodeError:
        return False
