"""Dialogs, and the prompt formats that make tokens of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypedDict

__all__ = [
    "Dialog",
    "GapFormat",
    "Message",
    "ParsedAnswer",
    "PromptFormat",
    "PromptFormatFactory",
    "Role",
    "TextFormat",
    "ToolCall",
    "ToolFormat",
]

Role = Literal["system", "user", "assistant", "tool", "ipython"]


class _Turn(TypedDict):
    role: Role
    """Who speaks: ``system``, ``user`` or ``assistant``; ``tool``, which Meta's code calls
    ``ipython``, where a format has tools."""
    content: str
    """Its text, as it was typed."""


class Message(_Turn, total=False):
    """One turn of a dialog: a dict with a role and a content. A ``Dialog`` is a sequence of them.

    The other keys are for prompt formats that have ``with_tools``.
    """

    tool_calls: Sequence[Mapping[str, Any]]
    """Of an assistant: ``{"name": …, "arguments": {…}}`` each, or as OpenAI's clients write it."""
    tool_call_id: str
    """Of a tool's answer, for the clients that need it."""
    ends: Literal["eot", "eom"]
    """Of an assistant: whether the turn ended, or the message only, to be resumed after a tool's
    answer."""


Dialog = Sequence[Message]


class PromptFormat(Protocol):
    """A dialog to tokens.

    A format may also have ``stop_strings``, a sequence of strings that end an answer and are not
    part of it, for models that write the end of a turn as text. It is optional: without it there
    are none.
    """

    @property
    def stop_tokens(self) -> Sequence[int]:
        """Tokens that end an answer."""
        ...

    def encode(self, dialog: Dialog) -> list[int]:
        """Return the prompt that asks for the next assistant message.

        Raises:
            SpecialTagError: a message's text holds one of the format's tags.
            DialogError: the roles are not in the order that the format knows.
        """
        ...


class TextFormat(PromptFormat, Protocol):
    """A prompt format that encodes a string without a dialog as well.

    ``generate`` passes it the prompts that are plain strings, which otherwise are continued.
    """

    keeps_space: bool
    """An answer continues where the prompt breaks off; a space at its start is its own."""

    def encode_text(self, text: str) -> list[int]:
        """Return the prompt for a string.

        Raises:
            PromptError: the text is not what the format wants.
        """
        ...


class GapFormat(PromptFormat, Protocol):
    """A prompt format for a gap between two strings, such as ``suffix`` of ``/v1/completions``."""

    def encode_gap(self, prefix: str, suffix: str) -> list[int]:
        """Return the prompt for what is between two strings.

        Raises:
            SpecialTagError: one of them holds one of the format's tags.
        """
        ...


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
        import json
        import secrets

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
    tool_calls: Sequence[ToolCall] = ()

    def as_message(self) -> Message:
        """Return OpenAI's message of the assistant, which may go back into the dialog."""
        if not self.tool_calls:
            return {"role": "assistant", "content": self.content}
        calls = [call.as_openai() for call in self.tool_calls]
        return {"role": "assistant", "content": self.content, "tool_calls": calls}


class ToolFormat(PromptFormat, Protocol):
    """A prompt format that writes tools, their calls and their answers as well."""

    has_tools: bool
    """The prompt describes tools to the model, so its answers may be calls."""

    def with_tools(self, tools: object) -> ToolFormat:
        """Return the format with these tools described to the model.

        Args:
            tools: a list, in the format of OpenAI's API.
        Raises:
            DialogError: they are something else.
        """
        ...

    def read_answer(self, tokens: Sequence[int]) -> ParsedAnswer:
        """Separate the tool calls of an answer from its text."""
        ...


PromptFormatFactory = Callable[..., PromptFormat]
