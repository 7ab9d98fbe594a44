"""Schemas, regular expressions and grammars, which the engine refuses in ways of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from fuzz_kit import Reader

from llamakit.plugins.processors.grammar import grammar, json_schema, regex
from llamakit.tokenizer.sentencepiece import SentencePieceTokenizer, load

TOKENIZER = Path(__file__).parents[1] / "data" / "reference-cases" / "tokenizer.model"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}}
SCHEMA |= {"required": ["a"], "$defs": {"b": {"enum": ["x", 1]}}, "additionalProperties": False}
OTHER = {"type": "array", "items": {"pattern": "[a-z]{1,4}", "format": "date"}, "maxItems": 3}
LARK = b'start: greeting " " NAME\ngreeting: "hello" | ("a" "b")+\nNAME: /[A-Z][a-z]{1,8}/\n'
GBNF = b'root ::= digit ("+" digit){0,3} "=" digit\ndigit ::= [0-9]{1,2}\n'


@cache
def tokenizer() -> SentencePieceTokenizer:
    return load(TOKENIZER)


def built(factory: Callable[..., object], argument: str) -> Callable[[bytes, Path], object]:
    """Build a processor with the text; what is no UTF-8 arrives as surrogates, as in arguments."""
    return lambda data, _: factory(
        tokenizer(), **{argument: data.decode("utf-8", "surrogateescape")}
    )


def chain(count: int) -> bytes:
    """Make a schema of references to references, which the engine follows by recursion."""
    links = {f"a{it}": {"items": {"$ref": f"#/$defs/a{it + 1}"}} for it in range(count)}
    return json.dumps({"$defs": {**links, f"a{count}": {}}, "$ref": "#/$defs/a0"}).encode()


def rules(count: int) -> bytes:
    """Make a grammar of rules that lead to rules."""
    lines = ["root ::= a0", *(f'a{it} ::= a{it + 1} | "x{it}"' for it in range(count))]
    return "\n".join([*lines, f'a{count} ::= "y"']).encode()


READERS = (
    Reader(
        "JSON schema",
        built(json_schema, "schema"),
        [json.dumps(SCHEMA).encode(), json.dumps(OTHER).encode()],
        [
            b"[" * 100_000,
            b'{"x-guidance": []}',
            b'{"x-guidance": {"a": 1}}',
            rb'{"enum": ["\ud800"]}',
            b'{"type": "string", "minLength": 1e300}',
            b'{"type": "array", "minItems": 99999999999999999999}',
            b'{"type": "integer", "multipleOf": 0}',
            b'{"$ref": "#"}',
            chain(1400),
            chain(20_000),
            b'{"pattern": "%s"}' % (b"a?" * 30_000),
            b'{"type": "string", "pattern": "(((((((((("}',
        ],
        cases=150,
    ),
    Reader(
        "regular expression",
        built(regex, "pattern"),
        [b"[a-z]+(foo|bar){1,3}", rb"\d{4}-\d\d?"],
        [
            b"(" * 100_000,
            b"a?" * 100_000,
            b"a{1000000}",
            b"(a{1000}){1000}",
            b"\xff",
            b"\0",
            b"(?i)" * 1000,
            b"[[[",
        ],
        cases=300,
    ),
    Reader(
        "grammar",
        built(grammar, "text"),
        [LARK, GBNF],
        [
            b"start: " + b"(" * 100_000,
            b"root ::= " + b"(" * 100_000,
            b'root ::= "a"{1,2000}{1,2000}',
            b"start: %json {",
            rules(1300),
            rules(20_000),
            b"root ::= [" + b"a-z" * 100_000 + b"]",
            b'start: %json {"type": []}',
            b"start: /(/",
            b"start: start",
            b"%llguidance {]",
            b'start: "\xff"',
            b"",
        ],
        cases=150,
        opens=(os.devnull,),  # for the process that tries a long one
    ),
)
