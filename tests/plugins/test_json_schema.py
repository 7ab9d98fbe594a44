"""JSON schemas: what is let through is valid; what the engine cannot do is refused by its place."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
import torch
from rows_kit import ByteTokenizer, row

from llamakit.errors import OptionError, PromptError
from llamakit.plugins.processors.grammar import json_schema

TOKENIZER: Any = ByteTokenizer()
INT: dict[str, Any] = {"type": "integer"}
ENDLESS: dict[str, Any] = {
    "type": "object",
    "properties": {"next": {"$ref": "#"}},
    "required": ["next"],
}
REFUSED: list[tuple[Any, str]] = [
    ({"uniqueItems": True}, "#/uniqueItems: the engine does not support 'uniqueItems'"),
    ({"items": {"contains": INT}}, "#/items/contains: "),
    ({"prefixItems": [{}, {"not": INT}]}, "#/prefixItems/1/not: "),
    ({"anyOf": [INT, {"if": INT, "then": INT}]}, "#/anyOf/1/if: "),
    ({"properties": {"a/b": {"propertyNames": {"pattern": "x"}}}}, "#/properties/a~1b/property"),
    ({"patternProperties": {"^x": {"unevaluatedItems": False}}}, "#/patternProperties/^x/un"),
    ({"additionalProperties": {"unevaluatedProperties": False}}, "#/additionalProperties/un"),
    ({"dependentRequired": {"a": ["b"]}}, "#/dependentRequired: "),
    ({"dependentSchemas": {"a": {}}}, "#/dependentSchemas: "),
    ({"dependencies": {"a": ["b"]}}, "#/dependencies: "),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"minContains": 1, "contains": {}}}}, "#/$defs/a/"),
    ({"$dynamicRef": "#a"}, "#/$dynamicRef: "),
    ({"properties": {"a": {"minimun": 1}}}, "#/properties/a/minimun: there is no keyword"),
    ({"additionalproperties": False}, "did you mean 'additionalProperties'?"),
    ({"items": {"nullable": True}}, "#/items/nullable: "),
    ({"$schema": "http://json-schema.org/draft-04/schema#", "const": 1}, "#/const: the draft"),
    ({"$schema": "http://json-schema.org/draft-03/schema#"}, "#/$schema: expected"),
    (ENDLESS, "#: no finite JSON fits it"),
    (
        {
            "properties": {
                "a": {"items": {"$ref": "#/properties/a"}, "type": "array", "minItems": 1}
            }
        },
        "#/p",
    ),
    ({"$ref": "#"}, "#: no finite JSON fits it"),
    ({"items": {"format": "zip-code"}}, "#/items/format: Unknown format: zip-code"),
    ({"properties": {"a": {"type": "objec"}}}, "#/properties/a/type: Invalid type: objec"),
    (
        {"properties": {"a": {"pattern": "(a)\\1"}}},
        "#/properties/a/pattern: regex parse error: back",
    ),
    ({"allOf": [INT, {"minLength": -1}]}, "#/allOf/1/minLength: Expected positive integer"),
    ({"items": {"$ref": "#/$defs/no"}}, "#/items/$ref: Pointer '/$defs/no' does not exist"),
    ({"items": {"$ref": "https://a.example/b"}}, "#/items/$ref: Resource 'https://a.example/b'"),
    ({"items": {"oneOf": [{"type": "number"}, INT]}}, "#/items/oneOf: oneOf constraints are not"),
    (
        {
            "type": "object",
            "properties": {"a": {"type": "string", "pattern": "^b$", "minLength": 3}},
            "required": ["a"],
        },
        "#/properties/a: Unsatisfiable schema",
    ),
    (
        {"$defs": {"x": {"items": {"format": "no"}}}, "items": {"$ref": "#/$defs/x"}},
        "#/$defs/x/items/f",
    ),
]
NEUTRAL: list[dict[str, Any]] = [
    {"type": "array", "uniqueItems": False, "minContains": 1},
    {"not": False, "dependentRequired": {}, "unevaluatedProperties": True},
    {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": INT},
    {"if": INT, "type": "integer"},
    {"then": INT, "type": "string"},
    {"title": "T", "examples": [{"not": 1}], "default": {"uniqueItems": True}, "x-mine": 1},
    {"const": {"not": 1}},
    {"type": "integer", "discriminator": {}, "example": 3, "nullable": False},
    {"type": "object", "properties": {"not": INT, "minimun": INT, "$ref": INT}},
    {"type": "integer", "$defs": {"unused": {"not": {}}}},
]
SCHEMAS: list[dict[str, Any]] = [
    *NEUTRAL,
    {"type": ["string", "null"]},
    {"enum": [1, "a", None, [1, 2], {"a": 1}]},
    {"multipleOf": 2},
    {"type": "number", "multipleOf": 0.5, "exclusiveMaximum": 3},
    {"type": "integer", "minimum": 2, "maximum": 5},
    {"minLength": 2, "maxLength": 3},
    {"type": "string", "pattern": "b"},
    {"type": "string", "pattern": "^a|b$", "maxLength": 2},
    {"type": "string", "format": "date"},
    {"type": "array", "items": INT, "minItems": 1, "maxItems": 2},
    {"type": "array", "prefixItems": [INT, {"type": "string"}]},
    {"type": "array", "prefixItems": [INT], "items": False},
    {"type": "object", "properties": {"a": INT}, "required": ["a"]},
    {"type": "object", "required": ["x1"]},
    {"type": "object", "patternProperties": {"^x": INT}, "additionalProperties": False},
    {"type": "object", "properties": {"a": INT}, "additionalProperties": False},
    {"type": "object", "minProperties": 1, "maxProperties": 1},
    {"allOf": [{"minimum": 2}, {"maximum": 5}, {"multipleOf": 2}]},
    {"anyOf": [{"type": "string"}, {"type": "integer", "maximum": 1}]},
    {"oneOf": [{"type": "string"}, INT]},
    {"$ref": "#/$defs/a", "minimum": 3, "$defs": {"a": INT}},
    {"$ref": "#named", "$defs": {"a": {"$anchor": "named", "type": "integer"}}},
    {"anyOf": [INT, {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}]},
    {"type": "array", "items": {"$ref": "#"}},
]
VALUES: list[Any] = [
    *(None, True, 0, 1, 2, 3, 4, 5, 6, -1, 0.5, 2.5, "", "a", "b", "ab", "abc", "é", "2024-02-29"),
    *("2024-02-31", [], [1], [1, 2], [1, 2, 3], [1, "a"], ["a"], [[]], {}, {"a": 1}, {"a": "x"}),
    *({"b": 1}, {"a": 1, "b": 1}, {"x1": 1}, {"x1": "s"}, {"a": {"a": 1}}, {"a": {}}, {"not": 1}),
]


def accepts(schema: dict[str, Any], values: list[Any]) -> list[bool]:
    """Return of each value whether it is an answer that the processor lets through and end."""
    constraint = json_schema(TOKENIZER, schema=json.dumps(schema))

    def accepted(value: Any) -> bool:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        answer = row([256, *text.encode()], prompt_length=1, stop=[257])
        try:
            logits = constraint(torch.zeros(1, 258), [answer])
        except PromptError:
            return False
        return bool(logits[0, 257] == 0)

    return [accepted(value) for value in values]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_what_a_schema_lets_through_is_what_is_valid(schema: dict[str, Any]) -> None:
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)

    assert accepts(schema, VALUES) == [validator.is_valid(value) for value in VALUES]


@pytest.mark.parametrize(("schema", "expected"), REFUSED, ids=lambda it: json.dumps(it)[:60])
def test_what_a_schema_cannot_have_is_refused_by_its_keyword_and_path(
    schema: dict[str, Any], expected: str
) -> None:
    with pytest.raises(OptionError) as caught:
        json_schema(TOKENIZER, schema=json.dumps(schema))

    assert str(caught.value).startswith("the JSON schema cannot be used: #")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_long_schema_is_refused_without_compiling_all_of_its_parts() -> None:
    chain = {f"d{it}": {"$ref": f"#/$defs/d{it + 1}"} for it in range(1000)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**chain, "d1000": {"format": "no"}}}

    with pytest.raises(OptionError, match=r"#/.*: Unknown format: no"):
        json_schema(TOKENIZER, schema=json.dumps(schema))
