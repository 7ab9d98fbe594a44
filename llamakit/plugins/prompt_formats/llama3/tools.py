"""Tools as they are described to Llama 3 and 4, and their calls as they are written in a prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from llamakit.errors import DialogError, FileFormatError, InvalidJSONError
from llamakit.files.json_reader import parse_json
from llamakit.files.regular_file import open_regular
from llamakit.llama.tool_calls import CODE_INTERPRETER
from llamakit.protocols import ToolCall

Style = Literal["json", "function-tag", "python-list"]

SEARCHES = ("brave_search", "wolfram_alpha", "photogen")
"""Tools that the models were trained with; each has a query."""
LARGEST_FILE = 4_000_000
"""Bytes of a file of tools."""
_EXPECTED = (
    '[{"type": "function", "function": {"name": "f", "description": "…", "parameters": {…}}}]'
)


def read_tools(path: Path) -> list[Mapping[str, Any]]:
    """Read a JSON file of tools, in OpenAI's format.

    Raises:
        FileFormatError: it is something else.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        data = file.read(LARGEST_FILE + 1)
    try:
        value = parse_json(data, str(path), max_nbytes=LARGEST_FILE)
    except InvalidJSONError as error:
        raise FileFormatError(f"{error}; expected {_EXPECTED}") from error
    try:
        return check_tools(value)
    except DialogError as error:
        raise FileFormatError(f"{path}: {error}") from error


def check_tools(value: object) -> list[Mapping[str, Any]]:
    """Return the functions of a list of tools; ``{"tools": […]}`` will do too.

    Raises:
        DialogError: it is something else.
    """
    listed = value.get("tools") if isinstance(value, Mapping) else value
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise DialogError(f"the tools are a {type(value).__name__}; expected {_EXPECTED}")
    return [_function(tool, number) for number, tool in enumerate(listed, start=1)]


def _function(tool: object, number: int) -> Mapping[str, Any]:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not name:
        raise DialogError(f"tool {number} is {tool!r:.60}; expected {_EXPECTED}")
    return function


def describe(tools: Sequence[Mapping[str, Any]], style: Style) -> str:
    """Tell the model which tools there are and how to call them.

    Source: ``models/llama3_1/prompt_format.md`` and ``models/llama3_2/text_prompt_format.md`` of
        https://github.com/meta-llama/llama-models
    """
    if style == "json":
        shown = [_json({"type": "function", "function": tool}, indent=4) for tool in tools]
        return _IN_JSON.format(tools="\n".join(shown))
    if style == "function-tag":
        return _IN_TAGS.format(tools="".join(map(_in_a_line, tools)))
    return _IN_A_LIST.format(tools=_json(list(tools), indent=4))


def _in_a_line(tool: Mapping[str, Any]) -> str:
    description = tool.get("description", "")
    return f"Use the function '{tool['name']}' to '{description}':\n{_json(tool)}\n\n"


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def call_text(call: ToolCall, style: Style, number: int) -> str:
    """Write a call as Meta's code writes it; quotes in queries are not escaped there either.

    Args:
        number: of the message, from 1.
    Raises:
        DialogError: a built-in tool's call has no query, or no code.
    Source: ``ToolUtils.encode_tool_call`` in ``models/llama3/tool_utils.py``, the same place.
    """
    if call.name in SEARCHES:
        return f'{call.name}.call(query="{_argument(call, "query", number)}")'
    if call.name == CODE_INTERPRETER:
        return _argument(call, "code", number)
    if style == "function-tag":
        return f"<function={call.name}>{json.dumps(call.arguments)}</function>"
    if style == "python-list":
        return f"[{call.name}({_keywords(call.arguments)})]"
    value = {"type": "function", "name": call.name, "parameters": call.arguments}
    return json.dumps(value)


def _argument(call: ToolCall, name: str, number: int) -> str:
    value = call.arguments.get(name)
    if not isinstance(value, str):
        raise DialogError(
            f"message {number}: the call of {call.name} has no {name}, which is a string"
        )
    return value


def _keywords(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_python(value)}" for name, value in arguments.items())


def _python(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, Mapping):
        return f"{{{_keywords(value)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_python, value))}]"
    return str(value)


_IN_JSON = """\
Answer the user's question by making use of the following functions if needed.
If none of the function can be used, please say so.
Here is a list of functions in JSON format:
{tools}

Return function calls in JSON format."""

_IN_TAGS = """\
You have access to the following functions:

{tools}Think very carefully before calling functions.
If you choose to call a function ONLY reply in the following format with no prefix or suffix:

<function=example_function_name>{{"example_name": "example_value"}}</function>

Reminder:
- Function calls MUST follow the specified format, start with <function= and end with </function>
- Required parameters MUST be specified
- Only call one function at a time
- Put the entire function call reply on one line"""

_IN_A_LIST = """\
You are an expert in composing functions. You are given a question and a set of possible functions.
Based on the question, you will need to make one or more function/tool calls to achieve the purpose.
If none of the function can be used, point it out. If the given question lacks the parameters \
required by the function,
also point it out. You should only return the function call in tools call sections.

If you decide to invoke any of the function(s), you MUST put it in the format of \
[func_name1(params_name1=params_value1, params_name2=params_value2...), func_name2(params)]
You SHOULD NOT include any other text in the response.

Here is a list of functions in JSON format that you can invoke.

{tools}"""
