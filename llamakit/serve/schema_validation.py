"""Validation of values against JSON schemas, with the few keywords that the server uses.

Each request body has one schema, which both checks requests and is part of ``/openapi.json``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from llamakit.errors import suggestion
from llamakit.printable import printable
from llamakit.serve.api_errors import ApiError, bad
from llamakit.serve.schema_parts import NOTHING, is_unused

Schema = Mapping[str, Any]

_TYPE_NAMES = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


class Unknown(Enum):
    """What happens to fields that are unknown, or known and not offered."""

    REFUSE = "refuse"
    WARN = "warn"
    IGNORE = "ignore"


MOST_LISTED = 20
"""Fields that a message lists."""

Ignored = list[str]
"""The places of fields that are ignored, such as ``messages[0].name``."""


def check(
    value: object, schema: Schema, where: str = "", unknown: Unknown = Unknown.REFUSE
) -> Ignored:
    """Refuse a value that does not match a schema.

    Unknown fields that are ignored are removed from it: another endpoint may know them, and what
    reads both would take them for checked.

    Args:
        where: its place in the body, such as ``messages[0].role``; ``""`` is the whole body.
        unknown: whether unknown fields, and those that are not offered, are refused.
    Returns:
        The places of the fields that are ignored.
    Raises:
        ApiError: 400, naming the place, what was found and what was expected.
    """
    if "anyOf" in schema:
        return _check_any(value, schema["anyOf"], where, unknown)
    if "x-ignored" in schema:
        return [where]
    if "type" in schema and not any(_is(value, kind) for kind in _types(schema)):
        raise _wrong_type(value, schema, where)
    if "enum" in schema and not _is_one_of(value, schema["enum"]):
        if "x-refusal" in schema and unknown is not Unknown.REFUSE:
            return [where]
        raise _not_allowed(value, schema, where)
    ignored: Ignored = []
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_range(value, schema, where)
    elif isinstance(value, str):
        _check_length(len(value), schema, ("minLength", "maxLength"), "characters", where)
    elif isinstance(value, list):
        _check_length(len(value), schema, ("minItems", "maxItems"), "entries", where)
        items = schema.get("items", {})
        for number, item in enumerate(value):
            ignored += check(item, items, f"{where}[{number}]", unknown)
    elif isinstance(value, dict):
        ignored = _check_object(value, schema, where, unknown)
    return ignored


def _check_object(value: dict[str, Any], schema: Schema, where: str, unknown: Unknown) -> Ignored:
    known: Mapping[str, Schema] = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    _check_length(len(value), schema, ("minProperties", "maxProperties"), "entries", where)
    ignored: Ignored = []
    for name, item in list(value.items()):
        place = f"{where}.{name}" if where else name
        if name in known:
            ignored += check(item, known[name], place, unknown)
        elif others is NOTHING and item is not None and unknown is Unknown.REFUSE:
            raise bad(
                f"{_name(where)} has no field {printable(name)!r}{_suggestion(name, known)}",
                _top(place),
            )
        elif others is NOTHING:
            ignored.append(place)
            del value[name]
        elif others is not True:
            ignored += check(item, others, place, unknown)
    for name in schema.get("required", ()):  # last: a misspelled field is reported first
        if name not in value:
            raise bad(f"{_name(where)} lacks {name!r}", _top(f"{where}.{name}"))
    return ignored


def _suggestion(name: str, known: Mapping[str, Schema]) -> str:
    """Return a hint at the field that was meant; only a few fields are all listed."""
    hint = suggestion(name, [it for it, schema in known.items() if not is_unused(schema)])
    is_list = hint.startswith("; there are") and len(known) > MOST_LISTED
    return "; /openapi.json describes them" if is_list else hint


def _check_any(value: object, schemas: Sequence[Schema], where: str, unknown: Unknown) -> Ignored:
    """Refuse a value that matches none of several schemas; reports the one whose type fits."""
    if value is None and {"type": "null"} in schemas:
        return []
    nearest: ApiError | None = None
    for schema in schemas:
        try:
            return check(value, schema, where, unknown)
        except ApiError as error:
            if any(_is(value, kind) for kind in _types(schema)) and nearest is None:
                nearest = error
    kinds = dict.fromkeys(kind for schema in schemas for kind in _types(schema))
    raise nearest or _wrong_type(value, {"type": list(kinds)}, where)


def _is_one_of(value: object, allowed: Sequence[object]) -> bool:
    """Return whether a value is among others; true is not 1."""
    return any(value == it and isinstance(value, bool) == isinstance(it, bool) for it in allowed)


def _check_range(value: float, schema: Schema, where: str) -> None:
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    if not low <= value <= high:  # nan is in no range
        raise bad(
            f"{_name(where)} is {_short(value)}; it has to be {_range(low, high)}", _top(where)
        )


def _check_length(
    length: int, schema: Schema, keys: tuple[str, str], unit: str, where: str
) -> None:
    low, high = schema.get(keys[0], -math.inf), schema.get(keys[1], math.inf)
    if not low <= length <= high:
        raise bad(f"{_name(where)} has {length} {unit}; expected {_range(low, high)}", _top(where))


def _not_allowed(value: object, schema: Schema, where: str) -> ApiError:
    """Return the error for a value that is not one of the allowed ones."""
    if "x-refusal" in schema:
        return bad(f"{_name(where)} is not offered: {schema['x-refusal']}", _top(where))
    known = ", ".join(map(repr, schema["enum"]))
    return bad(f"{_name(where)} is {_short(value)}; it has to be one of {known}", _top(where))


def _range(low: float, high: float) -> str:
    if high == math.inf:
        return f"{low} or more"
    return f"{high} or less" if low == -math.inf else f"{low} to {high}"


def _is(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()  # JSON has one kind of number
    return isinstance(value, _TYPES[kind])


def _types(schema: Schema) -> Sequence[str]:
    kinds = schema.get("type", tuple(_TYPES))
    return (kinds,) if isinstance(kinds, str) else kinds


def _wrong_type(value: object, schema: Schema, where: str) -> ApiError:
    expected = " or ".join(_TYPE_NAMES[kind] for kind in _types(schema) if kind != "null")
    return bad(f"{_name(where)} is {_short(value)}; it has to be {expected}", _top(where))


def _short(value: object) -> str:
    """Return the repr of a value, shortened."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    if value is None or isinstance(value, bool):  # not looked up in a dict: 1 is equal to True
        text = "null" if value is None else str(value).lower()
    return text if len(text) < 60 else f"{text[:50]}…"


def _name(where: str) -> str:
    return printable(where) or "the body"


def _top(where: str) -> str | None:
    """Return the field of the request that a place is in."""
    return where.lstrip(".").partition(".")[0].partition("[")[0] or None
