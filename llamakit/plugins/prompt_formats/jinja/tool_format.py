"""A chat template that writes tools, their calls and their answers."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llamakit.errors import DialogError, PromptError
from llamakit.llama.tool_call_reader import read_answer
from llamakit.llama.tool_calls import tool_calls_of
from llamakit.plugins.prompt_formats.jinja.format import ROLES, JinjaFormat
from llamakit.plugins.prompt_formats.jinja.user_text import is_unicode
from llamakit.protocols import ParsedAnswer

if TYPE_CHECKING:
    from llamakit.protocols import Dialog, Message

_PROBE: Mapping[str, Any] = {
    "name": "probe-function",
    "description": "Does nothing.",
    "parameters": {
        "type": "object",
        "properties": {"it": {"type": "string", "description": "Anything."}},
        "required": ["it"],
    },
}


class ToolTemplateFormat(JinjaFormat):
    """A template that is called with ``tools`` as transformers calls it.

    Calls in messages have their arguments as objects, whatever the client has sent, and a tool's
    answer has the name of the function, too.

    Source: ``apply_chat_template(tools=…)`` of transformers, and its guide for tool use.
    """

    roles = (*ROLES, "tool", "ipython")
    has_tools = False

    def with_tools(self, tools: object) -> ToolTemplateFormat:
        """Return the format with tools. Raises DialogError if they are none."""
        described = copy.copy(self)
        described.tools = _checked(tools)
        described.has_tools = bool(described.tools)
        return described

    def read_answer(self, tokens: Sequence[int]) -> ParsedAnswer:
        """Separate the tool calls of an answer from its text."""
        return read_answer(self._tokenizer.decode(tokens))

    @property
    def writes_tools(self) -> bool:
        """Whether the template writes the tools that it is called with."""
        if "tools" not in self.chat_template:
            return False
        probe = self.with_tools([{"type": "function", "function": _PROBE}])
        try:
            parts = probe._parts([{"role": "user", "content": "question"}], answer=True)
        except PromptError:
            return False
        return any(_PROBE["name"] in part for part in parts if isinstance(part, str))

    def _messages(self, dialog: Dialog) -> list[dict[str, Any]]:
        names: dict[str, str] = {}
        return [_message(it, number, names) for number, it in enumerate(dialog, start=1)]


def _message(message: Message, number: int, names: dict[str, str]) -> dict[str, Any]:
    """Return a message as a template finds it.

    Args:
        names: of the functions that were called so far, by the IDs of their calls.
    """
    written: dict[str, Any] = {"role": message["role"], "content": message["content"]}
    if calls := tool_calls_of(message, number):
        written["tool_calls"] = listed = []
        for call, given in zip(calls, message["tool_calls"], strict=True):
            called = {"id": given["id"]} if isinstance(given.get("id"), str) else {}
            names |= dict.fromkeys(called.values(), call.name)
            function = {"name": call.name, "arguments": dict(call.arguments)}
            listed.append({**called, "type": "function", "function": function})
    if answered := message.get("tool_call_id"):
        written["tool_call_id"] = answered
        written["name"] = names.get(answered, answered)
    _check_json([written], f"message {number}")
    return written


def _checked(tools: object) -> list[Any]:
    """Return tools as ``{"type": "function", "function": {…}}``."""
    if not isinstance(tools, (list, tuple)):
        raise DialogError(f"the tools are {tools!r:.60}; expected a list of functions")
    listed = []
    for number, tool in enumerate(tools, start=1):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise DialogError(
                f"tool {number} is {tool!r:.60}; expected "
                '{"type": "function", "function": {"name": "f", "parameters": {…}}}'
            )
        listed.append(tool if "function" in tool else {"type": "function", "function": tool})
        _check_json(tool, f"tool {number}")
    return listed


def _check_json(value: object, place: str) -> None:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DialogError(f"{place} is not JSON: {error}") from error
    if not is_unicode(text):
        raise DialogError(f"{place} has a lone surrogate, such as \\ud800, which is no character")
