"""From a JSON schema to the processor, and from the engine's refusal to the place of its cause."""

from __future__ import annotations

import json
import re
from typing import Any

from llamakit.errors import OptionError
from llamakit.plugins.processors.grammar.constraint import Constraint, reason_against
from llamakit.plugins.processors.grammar.messages import engine_errors, on_large_stack
from llamakit.plugins.processors.grammar.schema_keywords import check_keywords, refused
from llamakit.plugins.processors.grammar.schema_tree import children, escaped, referenced
from llamakit.plugins.processors.grammar.time_limit import TooSlowError
from llamakit.plugins.processors.grammar.token_vocabulary import TokenVocabulary, vocabulary_of
from llamakit.protocols import Tokenizer

MOST_TRIES = 100
MOST_TRIED = 1 << 21
"""Schemas, and their characters, that are compiled to find the one that the engine refuses."""
ABOUT = (("pattern", "regex"), ("$ref", "Pointer '"), ("$ref", "Resource '"))
"""How the engine's messages refer to keywords that they do not name."""
COERCED = ("Enable 'coerce_one_of' option to approximate oneOf with anyOf", "Use anyOf")


def schema_constraint(
    tokenizer: Tokenizer, schema: dict[str, Any], guidance: dict[str, Any], name: str
) -> Constraint:
    """Return the processor that holds answers to a JSON schema.

    Args:
        schema: what restricts nothing is removed from it.
        guidance: the engine's own settings.
        name: for error messages.
    Raises:
        OptionError: the schema cannot be used; the message has the keyword and the JSON pointer.
    """
    check_keywords(schema, name)
    try:
        return Constraint(tokenizer, _grammar({**schema, "x-guidance": guidance}), name)
    except TooSlowError:
        raise
    except OptionError as error:
        with engine_errors(name):
            located = on_large_stack(lambda: _located(schema, vocabulary_of(tokenizer)))
        if located is None:
            raise
        raise refused(name, *located) from error


def _grammar(schema: dict[str, Any]) -> str:
    return f"start: %json {json.dumps(schema)}"


def _located(root: dict[str, Any], vocabulary: TokenVocabulary) -> tuple[str, str] | None:
    """Return the JSON pointer of the innermost schema that is refused, and why."""
    tries = min(MOST_TRIES, MOST_TRIED // len(json.dumps(root)))

    moved = _moved({key: value for key, value in root.items() if key != "$id"})

    def reason_of(path: str) -> str | None:
        nonlocal tries
        tries -= 1
        pointed = {"$ref": f"#/$defs/root{path[1:]}", "$defs": {"root": moved}}
        reason = reason_against(_grammar(pointed), vocabulary)
        return reason and reason.replace("/$defs/root", "")

    reason = reason_against(_grammar(root), vocabulary)
    path, node, seen = "#", root, {"#"}
    while reason is not None:
        parts = list(children(node, path))
        target = referenced(root, node)
        for at, part in [*parts, *([target] if target else [])]:
            if at in seen or not isinstance(part, dict) or not tries:
                continue
            seen.add(at)
            inner = reason_of(at)
            if inner is not None and (inner == reason or "unsatisfiable" in reason):
                path, node, reason = at, part, inner
                break
        else:
            return f"{path}{_keyword_of(reason, node)}", reason.replace(*COERCED)
    return None


def _moved(part: Any) -> Any:
    """Return a part of a schema whose root has moved to ``#/$defs/root``."""
    if isinstance(part, list):
        return [_moved(it) for it in part]
    if not isinstance(part, dict):
        return part
    moved = {key: _moved(value) for key, value in part.items()}
    pointer = part.get("$ref")
    if isinstance(pointer, str) and (pointer == "#" or pointer.startswith("#/")):
        moved["$ref"] = f"#/$defs/root{pointer[1:]}"
    return moved


def _keyword_of(reason: str, schema: dict[str, Any]) -> str:
    """Return the keyword that a message of the engine is about, as a step of a pointer, or ""."""
    named = [it for it in schema if re.search(rf"(?<!\w){re.escape(it)}(?!\w)", reason)]
    named += [keyword for keyword, word in ABOUT if keyword in schema and word in reason]
    return f"/{escaped(named[0])}" if named else ""
