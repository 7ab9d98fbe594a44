"""Validation of values against JSON schemas, with the few keywords that the server uses.

Each request body has one schema, which both checks requests and is part of ``/openapi.json``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llamakit.errors import suggestion
from llamakit.printable import printable
from llamakit.serve.api_errors import ApiError, bad

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


def check(value: object, schema: Schema, where: str = "") -> None:
    """Refuse a value that does not match a schema.

    Args:
        where: its place in the body, such as ``messages[0].role``; ``""`` is the whole body.
    Raises:
        ApiError: 400, naming the place, what was found and what was expected.
    """
    if "anyOf" in schema:
        _check_any(value, schema["anyOf"], where)
        return
    if "type" in schema and not any(_is(value, kind) for kind in _types(schema)):
        raise _wrong_type(value, schema, where)
    if "enum" in schema and value not in schema["enum"]:
        raise _not_allowed(value, schema, where)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_range(value, schema, where)
    elif isinstance(value, str):
        _check_length(len(value), schema, ("minLength", "maxLength"), "characters", where)
    elif isinstance(value, list):
        _check_length(len(value), schema, ("minItems", "maxItems"), "entries", where)
        for number, item in enumerate(value):
            check(item, schema.get("items", {}), f"{where}[{number}]")
    elif isinstance(value, dict):
        _check_object(value, schema, where)


def _check_object(value: dict[str, Any], schema: Schema, where: str) -> None:
    known: Mapping[str, Schema] = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    _check_length(len(value), schema, ("minProperties", "maxProperties"), "entries", where)
    for name, item in value.items():
        place = f"{where}.{name}" if where else name
        if name in known:
            check(item, known[name], place)
        elif others is False:
            raise bad(
                f"{_name(where)} has no field {printable(name)!r}{suggestion(name, known)}",
                _top(place),
            )
        elif others is not True:
            check(item, others, place)
    for name in schema.get("required", ()):  # last: a misspelled field is reported first
        if name not in value:
            raise bad(f"{_name(where)} lacks {name!r}", _top(f"{where}.{name}"))


def _check_any(value: object, schemas: Sequence[Schema], where: str) -> None:
    """Refuse a value that matches none of several schemas; reports the one whose type fits."""
    nearest: ApiError | None = None
    for schema in schemas:
        try:
            check(value, schema, where)
        except ApiError as error:
            if any(_is(value, kind) for kind in _types(schema)) and nearest is None:
                nearest = error
        else:
            return
    kinds = dict.fromkeys(kind for schema in schemas for kind in _types(schema))
    raise nearest or _wrong_type(value, {"type": list(kinds)}, where)


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
