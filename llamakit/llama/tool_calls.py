"""Tool calls: what a message holds of them, in the two spellings that clients use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llamakit.errors import DialogError, InvalidJSONError
from llamakit.files.json_reader import parse_json
from llamakit.printable import printable
from llamakit.protocols import Message, ToolCall

CODE_INTERPRETER = "code_interpreter"
"""The tool that runs the code which a model writes behind its python tag."""
_EXPECTED = (
    '{"name": "f", "arguments": {"city": "Paris"}}, or OpenAI\'s {"type": "function", "function": '
    '{"name": "f", "arguments": "{\\"city\\": \\"Paris\\"}"}}'
)


def tool_calls_of(message: Message, number: int) -> list[ToolCall]:
    """Return the calls of a message.

    Args:
        number: of the message in its dialog, from 1.
    Raises:
        DialogError: ``tool_calls`` is something else than a list of calls.
    """
    listed: Any = message.get("tool_calls") or ()
    if isinstance(listed, str | Mapping) or not isinstance(listed, Sequence):
        raise DialogError(f"message {number}: its tool_calls are no list; expected {_EXPECTED}")
    return [_call(value, number) for value in listed]


def _call(value: Any, number: int) -> ToolCall:
    inner = value.get("function", value) if isinstance(value, Mapping) else None
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(name, str) or not name:
        raise DialogError(f"message {number}: the tool call {value!r:.60}; expected {_EXPECTED}")
    arguments = inner.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = parse_json(arguments or "{}", "it")
        except InvalidJSONError as error:
            raise DialogError(
                f"message {number}: the arguments of {printable(name)} are not JSON "
                f"({error.reason})"
            ) from error
    if not isinstance(arguments, Mapping):
        raise DialogError(
            f"message {number}: the arguments of {printable(name)} are {arguments!r:.60}; expected "
            "an object"
        )
    return ToolCall(name, arguments)
