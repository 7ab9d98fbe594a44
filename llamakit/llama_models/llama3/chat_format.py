"""Dialogs to tokens, as ``llama_models/llama3/chat_format.py`` spells it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from llamakit.llama import tokenizer as plain
from llamakit.llama_models.datatypes import (
    BuiltinTool,
    RawContent,
    RawMessage,
    StopReason,
    ToolCall,
    ToolPromptFormat,
    content_text,
)
from llamakit.llama_models.llama3.tokenizer import Tokenizer
from llamakit.plugin_manager.contracts.prompt_formats import build_format
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.protocols import Message, ParsedAnswer, PromptFormat
from llamakit.protocols import Tokenizer as AnyTokenizer

_REPLY: Message = {"role": "assistant", "content": ""}


@dataclass
class LLMInput:
    """A prompt. There are no images here: ``vision`` is always None."""

    tokens: list[int]
    vision: None = None


class ChatFormat:
    """The prompt format ``llama3``, for messages of this package."""

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        self.tokenizer = Tokenizer.of(tokenizer)

    def encode_content(self, content: RawContent) -> LLMInput:
        """Return the prompt that a text is, to be continued."""
        return LLMInput(self.tokenizer.encode(content_text(content), bos=True))

    def encode_message(
        self, message: RawMessage, tool_prompt_format: ToolPromptFormat = ToolPromptFormat.json
    ) -> tuple[list[int], list[object]]:
        """Return the tokens of a message, with its header and its end, and its images: none."""
        tokens = self.encode_dialog_prompt([message], tool_prompt_format).tokens
        reply = len(plain.ChatFormat(self.tokenizer).encode_header(_REPLY))
        return tokens[1 : len(tokens) - reply], []

    def encode_dialog_prompt(
        self,
        messages: Sequence[RawMessage],
        tool_prompt_format: ToolPromptFormat | None = None,
    ) -> LLMInput:
        """Return the prompt that asks for the next assistant message."""
        style = (tool_prompt_format or ToolPromptFormat.json).value.replace("_", "-")
        return LLMInput(self._format(style).encode([it.as_message() for it in messages]))

    def decode_assistant_message(
        self, tokens: Sequence[int], stop_reason: StopReason
    ) -> RawMessage:
        """Return the message that an answer's tokens are, with its tool calls apart.

        Args:
            stop_reason: why it ended, where no token at its end says so.
        """
        ends = {
            self.tokenizer.eot_id: StopReason.end_of_turn,
            self.tokenizer.eom_id: StopReason.end_of_message,
        }
        if tokens and tokens[-1] in ends:
            tokens, stop_reason = tokens[:-1], ends[tokens[-1]]
        read = getattr(self._format("json"), "read_answer")  # noqa: B009 - of formats with tools
        answer: ParsedAnswer = read(list(tokens))
        calls = [
            ToolCall(str(uuid.uuid4()), _tool(call.name), call.arguments)
            for call in answer.tool_calls
        ]
        content = "" if calls else answer.content
        return RawMessage("assistant", content, stop_reason=stop_reason, tool_calls=calls)

    def _format(self, style: str) -> PromptFormat:
        entry = default_toolkit().prompt_formats.entry("llama3")
        return build_format(entry, {"tool_style": style}, self.tokenizer)


def _tool(name: str) -> BuiltinTool | str:
    return BuiltinTool(name) if name in BuiltinTool.__members__ else name
