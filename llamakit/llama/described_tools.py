"""Tools for prompt formats that have no way of their own to write them.

The system message describes them, a call is a JSON object, and a tool's answer is a message of the
user. Any model can be held to this by constrained decoding; others may follow the description.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llamakit.errors import DialogError
from llamakit.llama.tool_call_reader import read_answer
from llamakit.llama.tool_calls import tool_calls_of
from llamakit.protocols import Dialog, Message, ParsedAnswer, PromptFormat

_TOLD = """\
You have these functions:
{tools}
To call one, answer only with {{"name": "NAME", "parameters": {{…}}}}."""


class DescribedTools:
    """A prompt format with tools described in its system message.

    Args:
        decode: turns tokens into text.
        tools: in the form of OpenAI's API.
    """

    def __init__(
        self, inner: PromptFormat, decode: Callable[[Sequence[int]], str], tools: Sequence[Any]
    ) -> None:
        self._inner, self._decode = inner, decode
        self._functions = [_function(tool, number) for number, tool in enumerate(tools, start=1)]
        self.has_tools = bool(self._functions)
        self.stop_tokens = inner.stop_tokens
        self.stop_strings = tuple(getattr(inner, "stop_strings", ()))
        self.keeps_space = getattr(inner, "keeps_space", False)

    def with_tools(self, tools: Sequence[Any]) -> DescribedTools:
        """Return the format with other tools described."""
        return DescribedTools(self._inner, self._decode, tools)

    def encode(self, dialog: Dialog) -> list[int]:
        """Return the prompt that asks for the next assistant message. Raises as the format does."""
        messages = without_tool_messages(dialog)
        if self._functions:
            lines = (json.dumps(it, ensure_ascii=False) for it in self._functions)
            messages = _with_system(messages, _TOLD.format(tools="\n".join(lines)))
        return self._inner.encode(messages)

    def read_answer(self, tokens: Sequence[int]) -> ParsedAnswer:
        """Separate the tool calls of an answer from its text."""
        return read_answer(self._decode(tokens))


def _function(tool: Any, number: int) -> Mapping[str, Any]:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise DialogError(
            f"tool {number} is {tool!r:.60}; expected "
            '{"type": "function", "function": {"name": "f", "parameters": {…}}}'
        )
    return function


def _with_system(messages: list[Message], text: str) -> list[Message]:
    if messages and messages[0]["role"] == "system":
        first, *messages = messages
        text = f"{first['content']}\n\n{text}"
    return [{"role": "system", "content": text}, *messages]


def without_tool_messages(dialog: Dialog) -> list[Message]:
    """Write calls and their answers as plain messages; others stay as they are.

    Raises:
        DialogError: a call is none.
    """
    names: dict[str, str] = {}
    messages: list[Message] = []
    for number, message in enumerate(dialog, start=1):
        if message["role"] in ("tool", "ipython"):
            name = names.get(message.get("tool_call_id", ""), "The function")
            result = f"{name} returned: {message['content']}"
            if messages and number > 1 and dialog[number - 2]["role"] in ("tool", "ipython"):
                messages[-1] = {
                    "role": "user",
                    "content": f"{messages[-1]['content']}\n{result}",
                }
            else:
                messages.append({"role": "user", "content": result})
        elif message.get("tool_calls"):
            calls = tool_calls_of(message, number)
            ids = [call.get("id") for call in message["tool_calls"]]
            names |= {key: call.name for key, call in zip(ids, calls, strict=True) if key}
            written = "; ".join(
                json.dumps({"name": call.name, "parameters": call.arguments}, ensure_ascii=False)
                for call in calls
            )
            before = message.get("content")
            content = f"{before}\n{written}" if before else written
            messages.append({"role": "assistant", "content": content})
        else:
            messages.append(message)
    return messages
