"""JSON of messages and tools with its strings covered, and covered JSON as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llamakit.plugins.prompt_formats.jinja.user_text import Cover, CoveredText


def texts_of(values: Sequence[Any], kind: str) -> Iterator[tuple[str, str]]:
    """Yield each string in values, keys included, with its place, such as ``message 2``."""
    for number, value in enumerate(values, start=1):
        for text in _strings(value):
            yield f"{kind} {number}", text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, it in value.items():
            yield name
            yield from _strings(it)
    elif isinstance(value, list):
        for it in value:
            yield from _strings(it)


def covered_json(value: Any, cover: Cover) -> Any:
    """Cover the strings of a JSON value, those that are keys included.

    A key is found by its plain name.
    """
    if isinstance(value, str):
        return CoveredText.of(value, cover)
    if isinstance(value, dict):
        return {CoveredText.of(name, cover): covered_json(it, cover) for name, it in value.items()}
    return [covered_json(it, cover) for it in value] if isinstance(value, list) else value


def written_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON without HTML's escapes; what is covered stays so, as its plain text is written."""
    ready, is_covered = _escaped(value, ensure_ascii, sort_keys)
    return json.dumps(
        ready,
        ensure_ascii=ensure_ascii and not is_covered,  # its escapes would hide what is covered
        indent=indent,
        separators=separators,
        sort_keys=sort_keys and not is_covered,
    )


def _escaped(value: Any, ascii_only: bool, sort_keys: bool) -> tuple[Any, bool]:
    """Escape covered strings, so that nothing is left to escape; say whether there are any."""
    if isinstance(value, CoveredText):
        plain = json.dumps(value.cover.off(value), ensure_ascii=ascii_only)
        return value.cover.on(plain[1:-1]), True
    if isinstance(value, dict):
        items = sorted(value.items(), key=lambda it: it[0]) if sort_keys else value.items()
        pairs = [
            (_escaped(name, ascii_only, sort_keys), _escaped(it, ascii_only, sort_keys))
            for name, it in items
        ]
        is_covered = any(name[1] or it[1] for name, it in pairs)
        return {name[0]: it[0] for name, it in pairs}, is_covered
    if isinstance(value, (list, tuple)):
        parts = [_escaped(it, ascii_only, sort_keys) for it in value]
        return [part for part, _ in parts], any(flag for _, flag in parts)
    return value, False
