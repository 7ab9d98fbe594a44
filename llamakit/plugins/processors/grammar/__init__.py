"""Structured output (constrained decoding): a JSON schema, a regular expression or a grammar.

The engine is llguidance, which the extra ``grammar`` installs. At each step it returns
which tokens may follow; all others are ruled out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llamakit import hookimpl
from llamakit.errors import (
    FileFormatError,
    InvalidJSONError,
    MissingExtraError,
    OptionError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Tokenizer


def _read(file: str | None, text: str | None, kind: str) -> tuple[str, str]:
    """Return the content of a file or a string, and its name for error messages."""
    if (file is None) == (text is None):
        raise UsageError(f"the {kind} needs either a file or a string")
    if file is None:
        return text or "", f"the {kind}"
    from llamakit.files.home_folder import expand_home
    from llamakit.files.regular_file import read_bytes
    from llamakit.files.text import as_utf8

    path = expand_home(file)
    if not path.exists():
        raise UsageError(f"{path}: no such file; expected a {kind}")
    try:
        return as_utf8(read_bytes(path)).decode(), f"the {kind} {path}"
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not UTF-8 text: {error.reason}") from error


def _check_engine() -> None:
    try:
        import llguidance  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("constrained output", "llguidance", "grammar") from error


def json_schema(
    tokenizer: Tokenizer, file: str | None = None, schema: str | None = None, compact: bool = True
) -> LogitsProcessor:
    """Allow only tokens with which the answer becomes JSON that fits a schema.

    Args:
        file: a JSON schema.
        schema: the same as a string.
        compact: no white space between the parts; else any amount, and a model may not stop it.
    Source: llguidance, https://github.com/guidance-ai/llguidance
    """
    _check_engine()
    from llamakit.files.json_reader import parse_json
    from llamakit.plugins.processors.grammar.messages import (
        MAX_PATTERN_LENGTH,
        MAX_SCHEMA_LENGTH,
        check_length,
    )
    from llamakit.plugins.processors.grammar.schema_constraint import schema_constraint

    text, name = _read(file, schema, "JSON schema")
    check_length(text, name, MAX_SCHEMA_LENGTH)
    try:
        content = parse_json(text, name)
    except InvalidJSONError as error:
        raise OptionError(str(error)) from error
    if content is True:
        content = {}
    if not isinstance(content, dict):
        raise OptionError(f'{name} cannot be used: expected an object, such as {{"type": "array"}}')
    for pattern in _patterns(content):
        check_length(pattern, f"a pattern of {name}", MAX_PATTERN_LENGTH)
    guidance = content.pop("x-guidance", {})
    if not isinstance(guidance, dict):
        raise OptionError(f"{name} cannot be used: its x-guidance has to be an object")
    return schema_constraint(
        tokenizer, content, {"whitespace_flexible": not compact, **guidance}, name
    )


def _patterns(schema: dict[str, Any] | list[Any]) -> Iterator[str]:
    """Yield what may be a regular expression anywhere in a schema."""
    if isinstance(schema, dict):
        yield from schema
        if isinstance(pattern := schema.get("pattern"), str):
            yield pattern
    for part in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(part, dict | list):
            yield from _patterns(part)


def regex(tokenizer: Tokenizer, pattern: str = ".*") -> LogitsProcessor:
    """Allow only tokens with which the whole answer matches a regular expression.

    Args:
        pattern: in Rust's syntax, without look-around; a dot matches no line end.
    Source: llguidance, https://github.com/guidance-ai/llguidance
    """
    _check_engine()
    import json

    from llguidance import LLMatcher

    from llamakit.plugins.processors.grammar.constraint import Constraint
    from llamakit.plugins.processors.grammar.messages import (
        MAX_PATTERN_LENGTH,
        check_length,
        engine_errors,
        shortened,
    )

    name = f"the regular expression {shortened(pattern)!r}"
    check_length(pattern, name, MAX_PATTERN_LENGTH)
    with engine_errors(name):
        grammars = json.loads(LLMatcher.grammar_from_regex(pattern))  # noqa: TID251 - of the engine
    (lark,) = grammars["grammars"]
    return Constraint(tokenizer, lark["lark_grammar"], name)


def grammar(
    tokenizer: Tokenizer, file: str | None = None, text: str | None = None
) -> LogitsProcessor:
    """Allow only tokens with which the answer matches a grammar.

    Args:
        file: a grammar in Lark's notation, from ``start``, or in llama.cpp's GBNF, from ``root``.
        text: the same as a string.
    Source: llguidance, https://github.com/guidance-ai/llguidance
    """
    _check_engine()
    from llamakit.plugins.processors.grammar.constraint import Constraint
    from llamakit.plugins.processors.grammar.gbnf import GbnfError, is_gbnf, lark_of_gbnf
    from llamakit.plugins.processors.grammar.messages import (
        MAX_GBNF_LENGTH,
        MAX_GRAMMAR_LENGTH,
        check_length,
        shortened,
    )

    source, name = _read(file, text, "grammar")
    has_rules_of_gbnf = is_gbnf(source)
    check_length(source, name, MAX_GBNF_LENGTH if has_rules_of_gbnf else MAX_GRAMMAR_LENGTH)
    try:
        return Constraint(tokenizer, lark_of_gbnf(source) if has_rules_of_gbnf else source, name)
    except GbnfError as error:
        raise OptionError(f"{name} cannot be used: {shortened(str(error))}") from error


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``json-schema``, ``regex`` and ``grammar``."""
    processors.register("json-schema", json_schema, help="only JSON that fits a schema")
    processors.register("regex", regex, help="only what matches a regular expression")
    processors.register("grammar", grammar, help="only what matches a Lark or GBNF grammar")
