"""Tool calls: what a message holds of them, in the two spellings that clients use."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamakit.errors import DialogError, InvalidJSONError
from llamakit.json_reader import parse_json
from llamakit.printable import printable
from llamakit.protocols import Message

CODE_INTERPRETER = "code_interpreter"
"""The tool that runs the code which a model writes behind its python tag."""
_EXPECTED = (
    '{"name": "f", "arguments": {"city": "Paris"}}, or OpenAI\'s {"type": "function", "function": '
    '{"name": "f", "arguments": "{\\"city\\": \\"Paris\\"}"}}'
)


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for.

    Args:
        arguments: by the names of the tool's parameters; JSON values.
    """

    name: str
    arguments: Mapping[str, Any]

    def as_openai(self) -> dict[str, Any]:
        """Return an entry of OpenAI's ``tool_calls``, with an ID of its own."""
        arguments = json.dumps(self.arguments, ensure_ascii=False)
        return {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": self.name, "arguments": arguments},
        }


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer, its calls apart from its text."""

    content: str
    tool_calls: Sequence[ToolCall] = field(default=())

    def as_message(self) -> Message:
        """Return OpenAI's message of the assistant, which may go back into the dialog."""
        if not self.tool_calls:
            return {"role": "assistant", "content": self.content}
        calls = [call.as_openai() for call in self.tool_calls]
        return {"role": "assistant", "content": self.content, "tool_calls": calls}


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
