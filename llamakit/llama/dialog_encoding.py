"""Encodes a dialog, with its tools, by a prompt format that may know no tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llamakit.llama.described_tools import DescribedTools, without_tool_messages
from llamakit.protocols import Dialog, ParsedAnswer, PromptFormat, Tokenizer

ReadAnswer = Callable[[Sequence[int]], ParsedAnswer]


def with_tools(
    prompt_format: PromptFormat, tools: Sequence[Any] | None, tokenizer: Tokenizer
) -> PromptFormat:
    """Return the prompt format with tools described; without tools, the format itself.

    A format that knows no tools has them in its system message.

    Raises:
        DialogError: they are not what OpenAI's clients send.
    """
    if not tools:
        return prompt_format
    describe = getattr(prompt_format, "with_tools", None)
    if describe is None:
        return DescribedTools(prompt_format, tokenizer.decode, tools)
    described: PromptFormat = describe(tools)
    return described


def encode_dialog(prompt_format: PromptFormat, dialog: Dialog) -> list[int]:
    """Encode a dialog; tool calls are plain messages where the format knows no tools.

    Raises:
        DialogError: the format has no place for one of the messages.
    """
    if not hasattr(prompt_format, "with_tools"):
        dialog = without_tool_messages(dialog)
    return prompt_format.encode(dialog)


def answer_reader(prompt_format: PromptFormat) -> ReadAnswer | None:
    """Return what finds tool calls in an answer's tokens, if tools were described; else None."""
    if not getattr(prompt_format, "has_tools", False):
        return None
    read: ReadAnswer | None = getattr(prompt_format, "read_answer", None)
    return read
