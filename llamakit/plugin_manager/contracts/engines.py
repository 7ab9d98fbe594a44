"""The contract of engines to export for."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any, get_type_hints

from llamakit.errors import suggestion
from llamakit.protocols import Engine

PLACES = ("folder", "path", "file", "dtype")
"""What a command may leave open, in braces."""


def engine_fault(engine: Any) -> str:
    """Say what is wrong with an engine, or nothing.

    Args:
        engine: should be an ``Engine``.
    """
    if not isinstance(engine, Mapping):
        return f"is a {type(engine).__name__}; expected a dict with the keys of Engine"
    known = get_type_hints(Engine)
    for key, value in engine.items():
        if key not in known:
            return f"has no key {key!r} in its contract{suggestion(str(key), known)}"
        if key != "options" and not (isinstance(value, str) and value):
            return f"has {value!r:.60} as {key!r}; expected a string, not an empty one"
    for key in ("exporter", "command"):
        if key not in engine:
            return f"has no {key!r}; expected the name of an exporter, and what starts the engine"
    return _options_fault(engine.get("options", {})) or _command_fault(engine["command"])


def _options_fault(options: Any) -> str:
    if not isinstance(options, Mapping):
        return f"has {options!r:.60} as 'options'; expected a dict of strings"
    for item in options.items():
        if not all(isinstance(word, str) for word in item):
            return f"has the option {item!r:.60}; expected strings"
    return ""


def _command_fault(command: str) -> str:
    try:
        places = [place for _, place, _, _ in string.Formatter().parse(command)]
    except ValueError as error:
        return f"has the command {command!r:.60} ({error}); write braces of its own twice"
    for place in places:
        if place is not None and place not in PLACES:
            return (
                f"has {{{place}}} in its command; expected one of "
                f"{', '.join(f'{{{name}}}' for name in PLACES)}, and braces of its own twice"
            )
    return ""
