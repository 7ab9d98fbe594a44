"""The tools of a chat request, and what ``tool_choice`` makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamakit.files.json_reader import parse_json
from llamakit.serve.api_errors import bad
from llamakit.serve.tool_schemas import check_functions

Body = Mapping[str, Any]

MOST_CALLS = 16
"""Calls of one answer that has to have some."""
_SPACED = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
"""As Python writes JSON, which models were trained on."""
_NO_CALL = r"TEXT: /(\s*[^\s{](.|\n)*)?/"
"""Text that is no call in JSON; a call in a model's other ways of writing one is text here."""
_TYPE = r'("\"type\": \"function\", ")?'
"""What Llama 3 writes in a call, before its name."""


@dataclass(frozen=True)
class ToolUse:
    """The functions that a request describes, and how they may be called.

    Args:
        functions: as OpenAI's clients send them, in the order of the request.
        places: of each function in the request, for messages.
        callable: the names of those that may be called.
        is_forced: one of them has to be called.
        parallel: an answer may have several calls.
        legacy: the request has ``functions``, and wants a ``function_call``.
    """

    functions: Sequence[Mapping[str, Any]] = ()
    places: Sequence[str] = ()
    callable: Sequence[str] = ()
    is_forced: bool = False
    parallel: bool = True
    legacy: bool = False

    @property
    def described(self) -> list[dict[str, Any]]:
        """The functions that may be called, as a prompt format's ``with_tools`` takes them."""
        return [
            {"type": "function", "function": _without_marks(function)}
            for function in self.functions
            if function["name"] in self.callable
        ]

    @property
    def is_strict(self) -> bool:
        """Whether some function's arguments have to fit their schema."""
        return any(function.get("strict") for function in self.functions)


NO_TOOLS = ToolUse()


def tool_use(body: Body) -> ToolUse:
    """Read the tools of a request and the choice among them.

    Raises:
        ApiError: they are invalid, or contradict one another.
    """
    legacy = "functions" in body and not body.get("tools")
    if body.get("tools") and body.get("functions"):
        raise bad("tools and functions mean the same: give one", "functions")
    if legacy:
        functions = body["functions"]
        places = [f"functions[{number}]" for number in range(len(functions))]
    else:
        tools = body.get("tools", ())
        functions = [_function(tool) for tool in tools]
        inner = ["" if "name" in tool else ".function" for tool in tools]  # flat in /v1/responses
        places = [f"tools[{number}]{part}" for number, part in enumerate(inner)]
    check_functions(functions, places)
    param = "function_call" if legacy else "tool_choice"
    names = [function["name"] for function in functions]
    mode, chosen = _choice(body.get(param, "auto"), names, param)
    if mode == "required" and not names:
        raise bad(f"{param} asks for a call, and the request has no tools", param)
    single = legacy or body.get("parallel_tool_calls") is False or len(chosen) < len(names)
    return ToolUse(
        functions,
        places,
        () if mode == "none" else chosen,
        is_forced=mode == "required",
        parallel=not single,
        legacy=legacy,
    )


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function: Mapping[str, Any] = tool.get("function") or tool
    return {"strict": True, **function} if tool.get("strict") else function


def _without_marks(function: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the model is told of a function: what clients mark it with says nothing."""
    kept = ("name", "description", "parameters")
    return {name: function[name] for name in kept if function.get(name) is not None}


def _choice(given: Any, names: Sequence[str], param: str) -> tuple[str, Sequence[str]]:
    """Return whether a call is made (none, auto, required), and of which functions."""
    if isinstance(given, str):
        return ("required" if given == "any" else given), names
    if given.get("type") == "allowed_tools":
        allowed = given.get("allowed_tools") or given
        mode = allowed.get("mode") or "auto"
        wanted = [_name_of(tool, f"{param}.tools") for tool in allowed.get("tools") or ()]
    else:
        mode, wanted = "required", [_name_of(given, param)]
    for name in wanted:
        if name not in names:
            known = ", ".join(map(repr, names)) or "none"
            raise bad(f"{param} names {name!r:.80}; the request has the tools: {known:.200}", param)
    return mode, wanted


def _name_of(given: Mapping[str, Any], param: str) -> str:
    inner = given.get("function")
    name = (inner if isinstance(inner, dict) else given).get("name")
    if not isinstance(name, str):
        raise bad(f"{param} lacks the name of a function", param)
    return name


def call_grammar(use: ToolUse, answer_schema: str | None) -> str | None:
    """Return the grammar that an answer with these tools has to match, in Lark's notation.

    None if no tool may be called, or the answer is free.

    Args:
        answer_schema: the JSON schema that an answer without a call has to match, as JSON.
    """
    if not use.callable or not (use.is_forced or use.is_strict or answer_schema):
        return None
    functions = [it for it in use.functions if it["name"] in use.callable]
    calls = " | ".join(f"call_{number}" for number in range(len(functions)))
    several = f' ("; " call){{0,{MOST_CALLS - 1}}}' if use.parallel else ""
    lines = [f"call: {calls}"]
    for number, function in enumerate(functions):
        head = json.dumps(f'"name": "{function["name"]}", "parameters": ')
        arguments = arguments_schema(function)
        lines.append(f'call_{number}: "{{" {_TYPE} {head} %json {arguments} "}}"')
    if use.is_forced:
        start = f"start: call{several}"
    elif answer_schema:
        start = f"start: call{several} | %json {_compact(answer_schema)}"
    else:
        start = f"start: call{several} | TEXT"
        lines.append(_NO_CALL)
    return "\n".join([start, *lines])


def _compact(schema: str) -> str:
    """Return a schema, as JSON, for JSON without white space."""
    value = parse_json(schema, "the JSON schema")
    if isinstance(value, dict):
        value = {"x-guidance": {"whitespace_flexible": False}, **value}
    return json.dumps(value)


def arguments_schema(function: Mapping[str, Any]) -> str:
    """Return the JSON schema of a function's arguments, as JSON.

    Keywords that the engine does not know are no reason to refuse a function that is not strict.
    """
    parameters = _without_extras(function.get("parameters") or {"properties": {}})
    parameters["type"] = "object"
    parameters["x-guidance"] = {**_SPACED, "lenient": not function.get("strict")}
    return json.dumps(parameters)


def _without_extras(schema: Any) -> Any:
    """Return a schema whose objects have no other properties than those that it names.

    A function takes no others, and a small model would go on inventing some. Where schemas are
    joined by ``allOf``, each names only a part. What only describes is left out: half of a long
    list of tools.
    """
    if isinstance(schema, list):
        return [_without_extras(it) for it in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: value for key, value in schema.items() if key not in _DESCRIBING}
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, dict):
            inner[key] = {name: _without_extras(it) for name, it in value.items()}
        elif key in _NESTED:
            inner[key] = _without_extras(value)
    if isinstance(schema.get("properties"), dict) and not _JOINED.intersection(schema):
        inner.setdefault("additionalProperties", False)
    return inner


_DESCRIBING = frozenset(("title", "description", "default", "examples"))
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_NESTED = ("items", "prefixItems", "additionalProperties", "anyOf", "oneOf", "contains")
_JOINED = frozenset(("allOf", "anyOf", "oneOf", "if", "patternProperties", "$ref"))
