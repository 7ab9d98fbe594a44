"""Parts that JSON schemas of request bodies are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

LONGEST_OPTION = 1 << 16
"""Characters of an option, or of a JSON schema: a longer one takes seconds to build."""

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
OBJECT: Schema = {"type": "object"}
ID: Schema = {"type": "integer", "minimum": 0}


def maybe(schema: Mapping[str, Any]) -> Schema:
    """Return a schema that also allows null, which means the default."""
    description = {"description": schema["description"]} if "description" in schema else {}
    rest = {key: value for key, value in schema.items() if key != "description"}
    return {"anyOf": [rest, {"type": "null"}], **description}


NOTHING: Schema = {"type": "null"}
"""Fields that are unknown may be null: that asks for nothing."""


def closed(properties: Mapping[str, Mapping[str, Any]], required: tuple[str, ...] = ()) -> Schema:
    """Return the schema of an object without other fields; optional ones may be null."""
    return {
        "type": "object",
        "additionalProperties": NOTHING,
        "required": list(required),
        "properties": {
            name: dict(schema) if name in required else maybe(schema)
            for name, schema in properties.items()
        },
    }


def refused(reason: str, *harmless: Any) -> Schema:
    """Return the schema of a field that clients know and this server does not support.

    Args:
        reason: why, for the error message.
        harmless: values that are accepted, as null is, since they change nothing.
    """
    return {"enum": list(harmless), "description": f"Not offered: {reason}.", "x-refusal": reason}


def ignored(reason: str) -> Schema:
    """Return the schema of a field that changes no answer here, whatever its value.

    Args:
        reason: why, for the documentation.
    """
    return {"description": f"Ignored: {reason}.", "x-ignored": True}


def is_unused(schema: Mapping[str, Any]) -> bool:
    """Return whether a field is one that is ignored, or refused."""
    return any("x-ignored" in it or "x-refusal" in it for it in schema.get("anyOf", [schema]))


def number(low: float, high: float | None = None, description: str = "") -> Schema:
    """Return the schema of a number between two others."""
    return _bounded("number", low, high, description)


def whole(low: int, high: int | None = None, description: str = "") -> Schema:
    """Return the schema of a whole number between two others."""
    return _bounded("integer", low, high, description)


def _bounded(kind: str, low: float, high: float | None, description: str) -> Schema:
    most = {} if high is None else {"maximum": high}
    said = {"description": description} if description else {}
    return {"type": kind, "minimum": low, **most, **said}
