"""Encodes a dialog, with its tools, by a prompt format that may know no tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llamakit.errors import DialogError
from llamakit.protocols import Dialog, ParsedAnswer, PromptFormat

ReadAnswer = Callable[[Sequence[int]], ParsedAnswer]


def with_tools(prompt_format: PromptFormat, tools: Sequence[Any] | None) -> PromptFormat:
    """Return the prompt format with tools described; without tools, the format itself.

    Raises:
        DialogError: the format knows no tools, or they are not what OpenAI's clients send.
    """
    if not tools:
        return prompt_format
    describe = getattr(prompt_format, "with_tools", None)
    if describe is None:
        raise DialogError(
            "this prompt format has no way to describe tools; llama3 and llama4 have: choose one "
            "with --prompt-format, or leave the tools out"
        )
    described: PromptFormat = describe(tools)
    return described


def encode_dialog(prompt_format: PromptFormat, dialog: Dialog) -> list[int]:
    """Encode a dialog.

    Raises:
        DialogError: it has tool calls or a tool's answers, and the format knows no tools.
    """
    if not hasattr(prompt_format, "with_tools"):
        for number, message in enumerate(dialog, start=1):
            if message["role"] in ("tool", "ipython") or message.get("tool_calls"):
                raise DialogError(
                    f"message {number} ({message['role']}) belongs to a tool call, and this prompt "
                    "format has none; llama3 and llama4 have: choose one with --prompt-format"
                )
    return prompt_format.encode(dialog)


def answer_reader(prompt_format: PromptFormat) -> ReadAnswer | None:
    """Return what finds tool calls in an answer's tokens, if tools were described; else None."""
    if not getattr(prompt_format, "has_tools", False):
        return None
    read: ReadAnswer | None = getattr(prompt_format, "read_answer", None)
    return read
