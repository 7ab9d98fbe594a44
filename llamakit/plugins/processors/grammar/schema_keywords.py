"""Which keywords of JSON schema the engine reads, and what is said of the others."""

from __future__ import annotations

import difflib
import re
from typing import Any

from llamakit.errors import OptionError
from llamakit.plugins.processors.grammar.messages import shortened
from llamakit.plugins.processors.grammar.schema_tree import Schema, endless, escaped, reachable

UNSUPPORTED = {
    "uniqueItems": "",
    "contains": "",
    "minContains": "",
    "maxContains": "",
    "unevaluatedItems": "use items",
    "unevaluatedProperties": "use additionalProperties",
    "propertyNames": "use patternProperties with additionalProperties: false",
    "not": "list what is allowed, with enum or anyOf",
    "if": "use anyOf",
    "then": "use anyOf",
    "else": "use anyOf",
    "dependentRequired": "use anyOf",
    "dependentSchemas": "use anyOf",
    "dependencies": "use anyOf",
    "$dynamicRef": "use $ref",
    "$recursiveRef": "use $ref",
}
"""What restricts answers and the engine cannot do, with what may do instead."""

SUPPORTED = {
    *("type", "enum", "const", "multipleOf", "minimum", "maximum", "exclusiveMinimum"),
    *("exclusiveMaximum", "minLength", "maxLength", "pattern", "format", "items", "prefixItems"),
    *("additionalItems", "minItems", "maxItems", "properties", "patternProperties", "required"),
    *("additionalProperties", "minProperties", "maxProperties", "allOf", "anyOf", "oneOf"),
    *("$ref", "$defs", "definitions", "$id", "$anchor", "$schema", "$dynamicAnchor"),
}
ANNOTATIONS = {
    *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
    *("$comment", "$vocabulary", "$recursiveAnchor", "id", "contentEncoding"),
    *("contentMediaType", "contentSchema"),
    *("example", "discriminator", "externalDocs", "xml", "nullable"),  # of OpenAPI
}
"""What restricts nothing."""
KNOWN = {*UNSUPPORTED, *SUPPORTED, *ANNOTATIONS}

SINCE = {"const": 6, "contains": 6, "propertyNames": 6, "if": 7, "then": 7, "else": 7}
SINCE |= dict.fromkeys(("minContains", "maxContains", "dependentRequired"), 2019)
SINCE |= dict.fromkeys(("dependentSchemas", "unevaluatedItems", "unevaluatedProperties"), 2019)
SINCE |= {"prefixItems": 2020, "$dynamicRef": 2020}
"""The draft that a keyword first appears in: the engine passes over those of later drafts."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("uniqueItems", "not", "nullable"), (False,)),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, {}),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "dependencies": ({},),
    "propertyNames": (True, {}, {"type": "string"}),
}
"""Values with which a keyword restricts nothing."""
NEEDS = {
    "minContains": {"contains"},
    "maxContains": {"contains"},
    "then": {"if"},
    "else": {"if"},
    "if": {"then", "else"},
}
"""Keywords that restrict nothing without another one."""

ALIKE = 0.85
"""How alike, from 0 to 1, an unknown keyword and a known one are if it is a misspelling."""


def check_keywords(root: Schema, name: str) -> None:
    """Refuse what the engine cannot do or would pass over; remove keywords that restrict nothing.

    Args:
        root: changed in place.
        name: for error messages.
    Raises:
        OptionError: with the JSON pointer of the keyword.
    """
    draft = _draft(root, name)
    for schema in reachable(root).values():
        for keyword in [it for it in schema if _restricts_nothing(it, schema)]:
            del schema[keyword]
    for path, schema in reachable(root).items():
        for keyword in schema:
            reason = _reason_against(keyword, schema[keyword], draft)
            if reason:
                raise refused(name, f"{path}/{escaped(keyword)}", reason)
    path_of_endless = endless(root)
    if path_of_endless is not None:
        raise refused(name, path_of_endless, "no finite JSON fits it, for it requires itself")


def refused(name: str, path: str, reason: str) -> OptionError:
    """Return the error for a schema that cannot be used.

    Args:
        path: JSON pointer of what is wrong.
    """
    return OptionError(f"{name} cannot be used: {shortened(path)}: {reason}")


def _reason_against(keyword: str, value: object, draft: int) -> str | None:
    since = SINCE.get(keyword, 0)
    if draft < since:
        return f"the draft that $schema names has no {keyword!r}: name draft {since} or none"
    if keyword in UNSUPPORTED:
        advice = UNSUPPORTED[keyword] or "leave it out, and check the answer for it"
        return f"the engine does not support {keyword!r}: {advice}"
    if keyword == "nullable" and value is True:
        return "'nullable' is not of JSON schema: add \"null\" to the type"
    if keyword not in KNOWN and (meant := _meant(keyword)):
        return f"there is no keyword {shortened(keyword)!r}: did you mean {meant!r}?"
    return None


def _meant(keyword: str) -> str | None:
    """Return the keyword that an unknown one is a misspelling of, or None."""
    if keyword.startswith("x-"):
        return None
    known = {it.lower(): it for it in sorted(KNOWN - ANNOTATIONS)}
    alike = difflib.get_close_matches(keyword[:40].lower(), known, 1, ALIKE)
    return known[alike[0]] if alike else None


def _restricts_nothing(keyword: str, schema: dict[str, Any]) -> bool:
    value = schema[keyword]
    if keyword in NEUTRAL:
        return any(type(value) is type(it) and value == it for it in NEUTRAL[keyword])
    needed = NEEDS.get(keyword)
    return needed is not None and not schema.keys() & needed


def _draft(root: Schema, name: str) -> int:
    """Return the draft that a schema is written for: 4, 6, 7, 2019 or 2020."""
    given = root.get("$schema") if isinstance(root, dict) else None
    if given is None:
        return 2020
    found = re.search(r"/draft[-/]0*(\d+)", given) if isinstance(given, str) else None
    draft = int(found[1]) if found else 0
    if draft not in (4, 6, 7, 2019, 2020):
        reason = f"expected JSON schema's draft 4, 6, 7, 2019-09 or 2020-12, not {given!r}"
        raise refused(name, "#/$schema", shortened(reason))
    return draft
