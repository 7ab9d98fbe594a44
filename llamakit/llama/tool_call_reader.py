"""Finds the tool calls in an answer, in all the ways that Llama 3 and 4 and their fine-tunes write.

Text that is not wholly in one of these ways is an answer like any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from llamakit.llama.python_list import read_python_list
from llamakit.llama.tool_calls import CODE_INTERPRETER
from llamakit.protocols import ParsedAnswer, ToolCall

_HEADER = re.compile(
    r"<\|(?:start_header_id|header_start)\|>assistant<\|(?:end_header_id|header_end)\|>\n\n"
)
_TAG = re.compile(r"<\|(?:python_tag|python_start)\|>")
_END = re.compile(r"(?:<\|(?:eot_id|eom_id|eot|eom|end_of_text)\|>)+\Z")
_FUNCTION = re.compile(
    r"<function=([^<>{}\s]+)>\s*(\{.*?)(?:</function>|(?=<function=)|\Z)", re.DOTALL
)
_TOOL_CALL = re.compile(r"<(tool_call)>\s*(\{.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
_BUILTIN = re.compile(r'^[ \t]*(\w+)\.call\(query="(.*)"\)[ \t]*$', re.MULTILINE)
_BETWEEN = re.compile(r"[\s;,]*")
_DECODER = json.JSONDecoder(strict=False)  # models write line ends inside strings as they are


def read_answer(text: str, *, tagged: bool = False) -> ParsedAnswer:
    """Separate the calls of an answer from its text.

    Args:
        text: as decoded, with or without the names of special tokens around it.
        tagged: the model wrote its python tag before it. What is then no call is code.
    """
    content = _HEADER.sub("", text.strip(" "), count=1) if "<|" in text else text
    if tag := _TAG.match(content):
        tagged, content = True, content[tag.end() :].replace("<|python_end|>", "")
    content = _END.sub("", content)
    body = content.strip()
    calls, rest = _tagged_calls(content)
    if not calls:
        calls = _json_calls(body) or read_python_list(body)
        rest = ""
    if not calls:
        calls, rest = _builtin_calls(content)
        if tagged and (rest or not calls):  # a call among other lines is a line of the code
            calls, rest = [ToolCall(CODE_INTERPRETER, {"code": content})] if body else [], ""
    return ParsedAnswer(rest, calls) if calls else ParsedAnswer(content)


def _tagged_calls(text: str) -> tuple[list[ToolCall], str]:
    """Read tags around calls, once or several times, and what is around them.

    They are ``<function=name>{…}</function>``, or Hermes' ``<tool_call>{…}</tool_call>``.
    """
    calls, rest, at = [], [], 0
    pattern = _TOOL_CALL if "<tool_call>" in text else _FUNCTION
    for match in pattern.finditer(text):
        value, end = _object(match[2])
        named = {"name": match[1], "arguments": value}
        call = _json_call(value if pattern is _TOOL_CALL else named)
        if call is not None:
            calls.append(call)
            rest += [text[at : match.start()], match[2][end:]]
            at = match.end()
    return calls, "".join([*rest, text[at:]]).strip()


def _object(text: str) -> tuple[dict[str, Any] | None, int]:
    """Read the JSON object that the text begins with, in single quotes if need be; say its end."""
    for source in (text, text.replace("'", '"')):
        try:
            value, end = _DECODER.raw_decode(source)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value, end
    return None, 0


def _json_calls(text: str) -> list[ToolCall]:
    """Read JSON objects, alone, in a list or one after the other; all of them have to be calls."""
    if text[:1] not in ("{", "["):
        return []
    try:
        values = [_json_call(value) for value in _json_values(text)]
    except (ValueError, RecursionError):
        return []
    calls = [call for call in values if call is not None]
    return calls if len(calls) == len(values) else []


def _json_values(text: str) -> Iterator[Any]:
    at = 0
    while at < len(text):
        value, at = _DECODER.raw_decode(text, at)
        yield from value if isinstance(value, list) else [value]
        between = _BETWEEN.match(text, at)
        assert between is not None
        at = between.end()


def _json_call(value: Any) -> ToolCall | None:
    if not isinstance(value, dict):
        return None
    inner = value.get("function", value)
    if not isinstance(inner, dict):
        return None
    name, arguments = inner.get("name"), inner.get("parameters", inner.get("arguments"))
    if isinstance(arguments, str):
        arguments = _DECODER.decode(arguments)
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return ToolCall(name, arguments)


def _builtin_calls(text: str) -> tuple[list[ToolCall], str]:
    """Read ``name.call(query="…")``, each on a line of its own, and the other lines."""
    calls = [ToolCall(match[1], {"query": match[2]}) for match in _BUILTIN.finditer(text)]
    return calls, _BUILTIN.sub("", text).strip()
