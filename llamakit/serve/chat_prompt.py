"""The prompt of a chat request: its prompt format, its messages and its tools."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamakit.errors import LlamakitError, TokenizerError, UsageError, for_commands
from llamakit.llama.dialog_encoding import ReadAnswer, answer_reader, with_tools
from llamakit.llama.llama import Llama
from llamakit.plugin_manager.contracts.prompt_formats import build_format
from llamakit.plugin_manager.factories import Choice, parse_choice
from llamakit.printable import printable
from llamakit.protocols import Message, PromptFormat
from llamakit.serve.api_errors import ApiError, as_api_error, bad, in_fields
from llamakit.serve.request_messages import dialog_of, encode_messages
from llamakit.serve.sampling_reader import read_choice
from llamakit.serve.schema_validation import Unknown
from llamakit.serve.server_settings import ServeSettings
from llamakit.serve.tool_choice import ToolUse

Body = Mapping[str, Any]

NO_EFFECT = ("enable_thinking", "thinking", "reasoning_effort", "thinking_budget")
"""Variables of the templates of reasoning models, which other formats have no use for."""


@dataclass(frozen=True)
class AnswerTools:
    """How calls are found in an answer.

    Args:
        read: separates calls from text, of a whole answer.
        call_token: what comes before a call, where the model has a token for that.
        single: only the first call counts.
        legacy: it is returned as ``function_call``.
    """

    read: ReadAnswer
    call_token: int | None = None
    single: bool = False
    legacy: bool = False


@dataclass(frozen=True)
class ChatPrompt:
    """The tokens of a chat request, and what its answer is read with.

    Args:
        continues: the answer continues the last message.
    """

    tokens: list[int]
    prompt_format: PromptFormat
    tools: AnswerTools | None
    continues: bool


class ChatPrompts:
    """Encodes chat requests for one model."""

    def __init__(self, llama: Llama, settings: ServeSettings) -> None:
        self._llama, self._settings = llama, settings

    def read(self, body: Body, use: ToolUse) -> ChatPrompt:
        """Encode the messages of a chat request, with its tools described.

        Raises:
            ApiError: the prompt format cannot write them.
        """
        prompt_format = self._with_variables(self.prompt_format(body), body)
        try:
            prompt_format = with_tools(prompt_format, use.described, self._llama.tokenizer)
        except LlamakitError as error:
            raise as_api_error(error, "functions" if use.legacy else "tools") from error
        tokens, continues = self.encoded(prompt_format, body)
        read = answer_reader(prompt_format)
        tools = None
        if read is not None:
            token = getattr(prompt_format, "call_token", None)
            tools = AnswerTools(read, token, single=not use.parallel, legacy=use.legacy)
        return ChatPrompt(tokens, prompt_format, tools, continues)

    def prompt_format(self, body: Body) -> PromptFormat:
        """Build the prompt format that a request names, or the server's. Raises ApiError."""
        given = body.get("prompt_format")
        if given is None:
            own = self._settings.prompt_format or self._llama.default_prompt_format
            return self.build(parse_choice(own))
        return self.build(read_choice(given, self._llama.toolkit.prompt_formats, "prompt_format"))

    def build(self, choice: Choice) -> PromptFormat:
        """Build a prompt format.

        Raises:
            ApiError: it is unknown, an option is invalid, or it is for other tokenizers than the
                model's. The message has that file's name, but not its folder.
        """
        tokenizer, known = self._llama.tokenizer, self._llama.toolkit.prompt_formats
        try:
            return build_format(known.entry(choice.name), choice.options, tokenizer)
        except LlamakitError as error:
            message = for_commands(error).replace(f"{tokenizer.path.parent}{os.sep}", "")
            if isinstance(error, (TokenizerError, UsageError)):
                raise bad(in_fields(message), "prompt_format") from error
            raise ApiError(500, in_fields(message), code=type(error).__name__) from error

    def encoded(self, prompt_format: PromptFormat, body: Body) -> tuple[list[int], bool]:
        """Encode the messages; return also whether the answer continues the last one.

        Raises:
            ApiError: the format has no place for one of the messages.
        """
        try:
            dialog = dialog_of(body["messages"])
            beginning = _beginning(dialog, body)
            if beginning is None:
                return encode_messages(prompt_format, dialog), False
            tokens = encode_messages(prompt_format, dialog[:-1])
            return tokens + self._llama.tokenizer.encode(beginning), True
        except LlamakitError as error:
            raise as_api_error(error, "messages") from error

    def _with_variables(self, prompt_format: PromptFormat, body: Body) -> PromptFormat:
        """Return the prompt format with the variables of ``chat_template_kwargs``."""
        known = getattr(prompt_format, "variables", ())  # None: a template may have any
        given = body.get("chat_template_kwargs") or {}
        others = [name for name in given if known is not None and name not in known]
        for name in others:
            if name not in NO_EFFECT and self._settings.unknown_fields is Unknown.REFUSE:
                raise bad(
                    f"chat_template_kwargs has {printable(name)!r}; this prompt format has "
                    f"{'the variables ' + ', '.join(known) if known else 'no variables'}: leave it "
                    "out, or choose the prompt format jinja",
                    "chat_template_kwargs",
                )
        variables = {name: given[name] for name in given if name not in others}
        if not variables:
            return prompt_format
        with_names: Any = prompt_format  # of those that have variables
        try:
            taken: PromptFormat = with_names.with_variables(variables)
        except LlamakitError as error:
            raise as_api_error(error, "chat_template_kwargs") from error
        return taken


def _beginning(dialog: Sequence[Message], body: Body) -> str | None:
    """Return the text that the answer continues, if the request asks for that.

    Raises:
        ApiError: the last message is no text of the assistant, or the request contradicts itself.
    """
    last = body["messages"][-1]
    marked = bool(last.get("prefix") or last.get("partial"))
    wanted, adds = body.get("continue_final_message"), body.get("add_generation_prompt")
    if wanted and adds:
        raise bad(
            "continue_final_message and add_generation_prompt contradict one another: the answer "
            "continues the last message or begins a new one",
            "add_generation_prompt",
        )
    if adds is False and not (wanted or marked):
        raise bad(
            "add_generation_prompt false needs continue_final_message: a prompt ends with what "
            "asks for an answer",
            "add_generation_prompt",
        )
    if not (wanted or marked):
        return None
    if dialog[-1]["role"] != "assistant" or dialog[-1].get("tool_calls"):
        raise bad(
            "continue_final_message needs a last message of the assistant, with text",
            "continue_final_message" if wanted else "messages",
        )
    return dialog[-1]["content"]
