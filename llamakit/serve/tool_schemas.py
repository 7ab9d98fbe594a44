"""JSON schemas of tools and of the choice among them, and the check of their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llamakit.printable import printable
from llamakit.serve.api_errors import ApiError, bad
from llamakit.serve.message_schemas import MOST_TOOLS
from llamakit.serve.schema_parts import FLAG, OBJECT, TEXT, Schema, closed, ignored

LONGEST_NAME = 128
NAME: Schema = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}
_IGNORED: Mapping[str, Schema] = {
    "cache_control": ignored("prompts are cached here in any case"),
    "defer_loading": ignored("all tools are described"),
    "eager_input_streaming": ignored("arguments are streamed in any case"),
}
FUNCTION = closed(
    {"name": NAME, "description": TEXT, "parameters": OBJECT, "strict": FLAG, **_IGNORED},
    ("name",),
)
TOOL = closed(
    {
        "type": {"type": "string", "enum": ["function"]},
        "function": FUNCTION,
        "strict": FLAG,
        **_IGNORED,
    },
    ("type", "function"),
)
TOOLS: Schema = {
    "type": "array",
    "items": TOOL,
    "maxItems": MOST_TOOLS,
    "description": "Functions that the model may ask for.",
}
_NAMED = closed({"name": NAME}, ("name",))
_ALLOWED: Mapping[str, Schema] = {
    "mode": {"type": "string", "enum": ["auto", "required"]},
    "tools": {"type": "array", "items": OBJECT, "minItems": 1, "maxItems": MOST_TOOLS},
}
TOOL_CHOICE: Schema = {
    "anyOf": [
        {"type": "string", "enum": ["none", "auto", "required", "any"]},
        closed(
            {
                "type": {"type": "string", "enum": ["function", "allowed_tools"]},
                "function": _NAMED,
                "name": NAME,
                **_ALLOWED,
                "allowed_tools": closed(_ALLOWED, ("mode", "tools")),
            },
            ("type",),
        ),
    ],
    "description": "Whether a function has to be called, and which.",
}
TOOL_FIELDS: Mapping[str, Schema] = {
    "tools": TOOLS,
    "tool_choice": TOOL_CHOICE,
    "parallel_tool_calls": {**FLAG, "description": "false: at most one call. [default: true]"},
    "functions": {
        "type": "array",
        "items": FUNCTION,
        "maxItems": MOST_TOOLS,
        "description": "The older form of tools.",
    },
    "function_call": {
        "anyOf": [{"type": "string", "enum": ["none", "auto"]}, _NAMED],
        "description": "The older form of tool_choice.",
    },
}

_TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")
_MAPPINGS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS = ("items", "additionalProperties", "not", "contains")


def check_functions(functions: Sequence[Mapping[str, Any]], places: Sequence[str]) -> None:
    """Refuse functions that cannot be called or whose parameters are no JSON schema.

    Args:
        places: of each function in the request, such as ``tools[0].function``.
    Raises:
        ApiError: 400, naming the place.
    """
    seen: dict[str, str] = {}
    for function, place in zip(functions, places, strict=True):
        name = function["name"]
        if not all(sign.isascii() and (sign.isalnum() or sign in "_-.") for sign in name):
            raise bad(
                f"{place}.name is {printable(name)!r}; it has to be letters, digits, _, - and .",
                _field(place),
            )
        if name in seen:
            raise bad(f"{place}.name is {name!r}, as is {seen[name]}.name", _field(place))
        seen[name] = place
        check_parameters(function.get("parameters") or {}, f"{place}.parameters")


def check_parameters(schema: Mapping[str, Any], place: str) -> None:
    """Refuse parameters that are no JSON schema of an object.

    Raises:
        ApiError: 400, naming the place.
    """
    if schema.get("type", "object") != "object":
        raise _invalid(f"{place}.type", schema["type"], "'object'")
    _check(schema, place)


def _check(schema: object, place: str) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise _invalid(place, schema, "a JSON schema, which is an object")
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind not in _TYPES:
            raise _invalid(f"{place}.type", kind, f"one of {', '.join(map(repr, _TYPES))}")
    for key in ("required", "enum"):
        if not isinstance(schema.get(key, []), list):
            raise _invalid(f"{place}.{key}", schema[key], "a list")
    for name in schema.get("required", []):
        if not isinstance(name, str):
            raise _invalid(f"{place}.required", name, "a list of strings")
    for inner, where in _parts(schema, place):
        _check(inner, where)


def _parts(schema: Mapping[str, Any], place: str) -> Iterator[tuple[object, str]]:
    """Yield the schemas in a schema, each with its place."""
    for key in _MAPPINGS:
        value = schema.get(key, {})
        if not isinstance(value, dict):
            raise _invalid(f"{place}.{key}", value, "an object")
        for name, inner in value.items():
            yield inner, f"{place}.{key}.{name}"
    for key in _LISTS:
        value = schema.get(key, [])
        if not isinstance(value, list):
            raise _invalid(f"{place}.{key}", value, "a list")
        for number, inner in enumerate(value):
            yield inner, f"{place}.{key}[{number}]"
    for key in _SCHEMAS:
        if isinstance(value := schema.get(key, True), list) and key == "items":  # older drafts
            for number, inner in enumerate(value):
                yield inner, f"{place}.items[{number}]"
        else:
            yield value, f"{place}.{key}"


def _invalid(place: str, value: object, expected: str) -> ApiError:
    found = "an object" if isinstance(value, dict) else printable(repr(value), 60)
    found = "a list" if isinstance(value, list) else found
    return bad(f"{printable(place, 200)} is {found}; it has to be {expected}", _field(place))


def _field(place: str) -> str:
    return place.partition("[")[0].partition(".")[0]
