"""Structured output: the ways in which clients ask for it, as one processor."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llamakit.errors import InvalidJSONError
from llamakit.files.json_reader import parse_json
from llamakit.plugin_manager.factories import Choice
from llamakit.serve.api_errors import bad
from llamakit.serve.schema_parts import FLAG, LONGEST_OPTION, OBJECT, TEXT, Schema, closed, refused

ANY_OBJECT = {"type": "object"}
_OTHER = "a grammar says the same"
_JSON: Schema = {"anyOf": [OBJECT, {**TEXT, "maxLength": LONGEST_OPTION}]}
_LONG: Schema = {**TEXT, "maxLength": LONGEST_OPTION}
_CHOICES: Schema = {"type": "array", "minItems": 1, "maxItems": 1024, "items": TEXT}

RESPONSE_FORMAT = closed(
    {
        "type": {
            "type": "string",
            "enum": ["text", "json_object", "json_schema", "regex", "grammar"],
        },
        "json_schema": closed(
            {
                "schema": {**OBJECT, "description": f"At most {LONGEST_OPTION} characters."},
                "name": TEXT,
                "description": TEXT,
                "strict": FLAG,
            },
            ("schema",),
        ),
        "schema": {**OBJECT, "description": "Of json_object and json_schema."},
        "regex": _LONG,
        "pattern": _LONG,
        "grammar": _LONG,
    },
    ("type",),
)
STRUCTURED_FIELDS: Mapping[str, Schema] = {
    "response_format": RESPONSE_FORMAT,
    "structured_outputs": closed(
        {
            "json": _JSON,
            "regex": _LONG,
            "choice": _CHOICES,
            "grammar": _LONG,
            "json_object": FLAG,
            "disable_any_whitespace": FLAG,
            "disable_fallback": FLAG,
            "disable_additional_properties": refused("the schema says it", False),
            "whitespace_pattern": refused(_OTHER),
            "structural_tag": refused(_OTHER),
        }
    ),
    "guided_json": {**_JSON, "description": "Processor json-schema."},
    "guided_regex": {**_LONG, "description": "Processor regex."},
    "guided_choice": {**_CHOICES, "description": "One of these strings."},
    "guided_grammar": {**_LONG, "description": "Processor grammar."},
    "json_schema": {**_JSON, "description": "Processor json-schema."},
    "regex": {**_LONG, "description": "Processor regex."},
    "ebnf": {**_LONG, "description": "Processor grammar."},
    "grammar": {
        "anyOf": [
            _LONG,
            closed(
                {
                    "type": {"type": "string", "enum": ["json", "regex", "json_schema"]},
                    "value": _JSON,
                },
                ("type", "value"),
            ),
        ],
        "description": "Processor grammar, in GBNF or Lark's notation.",
    },
    "format": {
        "anyOf": [{"type": "string", "enum": ["json", ""]}, OBJECT],
        "description": "json or a JSON schema.",
    },
}
"""Fields that ask for structured output; a request has one of them."""


def structure_of(body: Mapping[str, Any]) -> tuple[Choice, str] | None:
    """Return the processor that a request's structured output needs, and the field.

    Raises:
        ApiError: two fields ask for it, or one is incomplete.
    """
    asked = [found for name in STRUCTURED_FIELDS if name in body for found in _read(name, body)]
    if len(asked) > 1:
        names = " and ".join(dict.fromkeys(param for _, param in asked))
        raise bad(f"{names} ask for structured output in {len(asked)} ways: give one", asked[1][1])
    return asked[0] if asked else None


def _read(name: str, body: Mapping[str, Any]) -> Iterator[tuple[Choice, str]]:
    value = body[name]
    if name == "response_format":
        choices = _response_format(value)
    elif name == "structured_outputs":
        choices = _structured_outputs(value)
    elif name == "grammar" and isinstance(value, dict):
        is_regex = value["type"] == "regex"
        choices = iter([_regex(value["value"]) if is_regex else _schema(value["value"], name)])
    elif name in ("guided_json", "json_schema"):
        choices = iter([_schema(value, name)])
    elif name == "format":
        choices = iter([_schema(ANY_OBJECT if value == "json" else value, name)] if value else [])
    elif name == "guided_choice":
        choices = iter([_one_of(value)])
    else:
        choices = iter([_regex(value) if name.endswith("regex") else _grammar(value)])
    for choice in choices:
        yield choice, name


def _response_format(wanted: Mapping[str, Any]) -> Iterator[Choice]:
    kind = wanted["type"]
    if kind == "json_object":
        yield _schema(wanted.get("schema") or ANY_OBJECT, "response_format")
    elif kind == "json_schema":
        schema = (wanted.get("json_schema") or wanted).get("schema")
        if schema is None:
            raise bad("response_format lacks 'json_schema'", "response_format")
        yield _schema(schema, "response_format")
    elif kind != "text":
        text = wanted.get(kind) or (wanted.get("pattern") if kind == "regex" else None)
        if text is None:
            raise bad(f"response_format lacks {kind!r}", "response_format")
        yield _regex(text) if kind == "regex" else _grammar(text)


def _structured_outputs(wanted: Mapping[str, Any]) -> Iterator[Choice]:
    if wanted.get("json") is not None:
        yield _schema(wanted["json"], "structured_outputs")
    if wanted.get("json_object"):
        yield _schema(ANY_OBJECT, "structured_outputs")
    if wanted.get("regex") is not None:
        yield _regex(wanted["regex"])
    if wanted.get("choice") is not None:
        yield _one_of(wanted["choice"])
    if wanted.get("grammar") is not None:
        yield _grammar(wanted["grammar"])


def _schema(schema: Any, param: str) -> Choice:
    """Return the processor for a JSON schema, which may be written as a string."""
    if isinstance(schema, str):
        try:
            schema = parse_json(schema, param)
        except InvalidJSONError as error:
            raise bad(str(error), param) from error
    text = json.dumps(schema)
    if len(text) > LONGEST_OPTION:
        raise bad(
            f"the JSON schema has {len(text)} characters; expected {LONGEST_OPTION} or less", param
        )
    return Choice("json-schema", {"schema": text})


def _regex(pattern: Any) -> Choice:
    return Choice("regex", {"pattern": str(pattern)})


def _grammar(text: str) -> Choice:
    return Choice("grammar", {"text": text})


def _one_of(choices: list[str]) -> Choice:
    return _regex("|".join(map(re.escape, choices)))
