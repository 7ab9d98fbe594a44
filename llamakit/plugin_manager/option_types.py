"""Types of options: what an annotation allows, and what a string becomes by it."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
WORDS = {
    bool: "yes or no",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path",
}
"""The types that a string can become, in words."""
_WHOLE = re.compile("[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INFINITE = re.compile("[+-]?inf(inity)?", re.IGNORECASE)
_SHOWN = 40
_LONGEST = 1000
"""Digits: Python refuses to read a few thousand, which take long."""


def read(value: object, annotation: Any) -> object:
    """Check a value against an annotation, or read it from a string.

    Raises:
        ValueError: it does not fit.
    """
    fitting = members(annotation)
    for member in fitting:
        try:
            return _read_as(value, member)
        except ValueError:
            continue
    expected = [WORDS.get(member, spell(member)) for member in fitting]
    raise ValueError(f"{value!r} is not {' or '.join(expected)}")


def _read_as(value: object, member: Any) -> object:
    """Read a value as one member of a union: a type, a literal value or None."""
    if member in WORDS:
        return _read_text(value, member) if isinstance(value, str) else _check(value, member)
    if isinstance(member, LiteralValue) or member is None:
        literal = member and member.value
        if value != literal and str(value).lower() != spell(member).lower():
            raise ValueError(value)
        return literal
    if isinstance(value, str):  # of a type that no text becomes
        raise ValueError(value)
    return value


def _read_text(text: str, kind: Callable[[str], object]) -> object:
    """Read a string as a bool, an int, a float, a str or a path."""
    if kind is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise ValueError(text)
        return text.lower() in _TRUE
    if kind is int:
        return whole_number(text)
    return number(text, finite=False) if kind is float else kind(text)


def whole_number(text: str) -> int:
    """Read a whole number as users write it: decimal digits of ASCII, with a sign or without.

    Raises:
        ValueError: it is something else; the message says so.
    """
    text = text.strip()
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text[:_SHOWN]!r} is not a whole number")
    if len(text) > _LONGEST:
        raise ValueError(f"{text[:_SHOWN]}… is too large a number")
    return int(text)


def number(text: str, *, finite: bool = True) -> float:
    """Read a number as users write it: with a sign, a point and an exponent, or without.

    Args:
        finite: ``inf`` is none.
    Raises:
        ValueError: it is something else; the message says so.
    """
    text = text.strip()
    if not (_NUMBER.fullmatch(text) or (not finite and _INFINITE.fullmatch(text))):
        raise ValueError(f"{text[:_SHOWN]!r} is not a number")
    value = float(text)
    if finite and math.isinf(value):
        raise ValueError(f"{text[:_SHOWN]} is too large a number")
    return value


def _check(value: object, kind: type) -> object:
    """Check that a value, given from Python, is of a type; an int will do for a float."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(value) from None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(value)
    return value


class LiteralValue(NamedTuple):
    """One value of a ``Literal``."""

    value: object


def members(annotation: Any) -> list[Any]:
    """Flatten an annotation into types, ``LiteralValue`` values and None.

    Types whose strings are recognized more easily come first: any string is a path, and a ``str``.
    """
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0])
    if origin is Literal:
        return [LiteralValue(value) for value in get_args(annotation)]
    if origin in (Union, types.UnionType):
        union = [member for part in get_args(annotation) for member in members(part)]
        return sorted(union, key=lambda member: {Path: 1, str: 2}.get(member, 0))
    return [None if annotation is type(None) else annotation]


def spell(member: Any) -> str:
    """Write a member of a union as users type it."""
    if isinstance(member, LiteralValue):
        return str(member.value)
    if member is None:
        return "none"
    return (
        member.__name__ if get_origin(member) is None and isinstance(member, type) else str(member)
    )
