"""The prompts of a request: their tokens, how many they are, and the room that they leave."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from llamakit.errors import LlamakitError
from llamakit.llama.llama import Llama
from llamakit.plugin_manager.factories import parse_choice
from llamakit.protocols import PromptFormat
from llamakit.serve.api_errors import ApiError, as_api_error, bad, context_exceeded
from llamakit.serve.body_check import too_many_answers
from llamakit.serve.chat_prompt import ChatPrompts
from llamakit.serve.server_settings import ServeSettings

UNLIMITED = -1
"""Clients of llama.cpp and LM Studio send it as ``max_tokens``."""

Body = Mapping[str, Any]
Encode = Callable[[str], list[int]]

INFILL = "infill"
"""The prompt format for prompts with a suffix."""


class PromptReader:
    """Checks and tokenizes prompts for one model. Several threads may call it.

    All its methods raise ``ApiError`` for what the model or the server cannot do.
    """

    def __init__(self, llama: Llama, settings: ServeSettings, chats: ChatPrompts) -> None:
        self._llama, self._settings, self._chats = llama, settings, chats
        self._vocabulary = llama.checkpoint.params.vocab_size

    def prompt_format(self, body: Body) -> PromptFormat | None:
        """Return the prompt format of a completion; None where its strings are continued."""
        if not body.get("suffix"):
            return self._chats.prompt_format(body) if "prompt_format" in body else None
        if body.get("echo"):
            raise bad("echo repeats a prompt, and with suffix there are two: leave it out", "echo")
        if "prompt_format" in body:
            return self._chats.prompt_format(body)
        own = self._settings.prompt_format or INFILL
        name = own if parse_choice(own).name == INFILL else INFILL
        try:
            return self._chats.build(parse_choice(name))
        except ApiError as error:
            raise bad(f"this model cannot take a suffix: {error}", "suffix") from error

    def read(
        self, body: Body, field: str = "prompt", *, prompt_format: PromptFormat | None = None
    ) -> list[list[int]]:
        """Return the tokens of each prompt of a completion, or of each text in another field.

        Args:
            prompt_format: that encodes strings; None continues them.
        """
        given, suffix = body[field], body.get("suffix", "")
        prompts = [given] if isinstance(given, str) or isinstance(given[0], (int, float)) else given
        self.check_count(len(prompts), body.get("n", 1))
        if suffix and not all(isinstance(prompt, str) for prompt in prompts):
            raise bad("suffix needs a prompt that is a string, not tokens", "suffix")
        for prompt in prompts:
            self.check_length([prompt, suffix] if isinstance(prompt, str) else ())
        encode = self._encode(prompt_format, suffix)
        try:
            return [self._tokens(prompt, field, encode) for prompt in prompts]
        except LlamakitError as error:
            raise as_api_error(error, field) from error

    def check_count(self, prompts: int, n: int) -> None:
        """Refuse more answers than one request may ask for."""
        most = self._settings.limits.choices
        if prompts * n > most:
            raise too_many_answers(prompts, n, most)

    def check_length(self, texts: Iterable[str]) -> None:
        """Refuse what has too many characters for the context, before it is encoded."""
        characters, context = sum(map(len, texts)), self._llama.max_seq_len
        if self._longest_token and characters > context * self._longest_token:
            raise context_exceeded(context, characters // self._longest_token, at_least=True)

    def check_tokens(self, tokens: Sequence[int], param: str, count: int | None = None) -> None:
        """Refuse token IDs from a count on: the tokenizer's, or by default the model's."""
        count = self._vocabulary if count is None else count
        if tokens and max(tokens) >= count:
            raise bad(f"{param} has the token ID {max(tokens)}; the last one is {count - 1}", param)

    def limit(self, length: int, new: int | None) -> int:
        """Return the longest length of a sequence, prompt included.

        Args:
            length: of the prompt; one that nothing follows may fill the context.
            new: how many tokens the request asks for, or ``UNLIMITED``.
        """
        context, most = self._llama.max_seq_len, self._settings.limits.new_tokens
        if length + (new != 0) > context:
            raise context_exceeded(context, length)
        if new == 0:
            return length
        if new is not None and most is not None and new > most:
            raise bad(f"max_tokens is {new}; this server gives {most} at most", "max_tokens")
        if new == UNLIMITED:
            new = most or context
        room = new or self._settings.new_tokens or most or context
        return min(context, length + min(room, most or room))

    def _encode(self, prompt_format: PromptFormat | None, suffix: str) -> Encode:
        """Return how strings are encoded."""
        if prompt_format is None:
            return functools.partial(self._llama.tokenizer.encode, bos=True)
        method = "encode_gap" if suffix else "encode_text"
        encode: Callable[..., list[int]] | None = getattr(prompt_format, method, None)
        if encode is None:
            use = "takes no suffix" if suffix else "is for chats, not for completions"
            raise bad(f"this prompt_format {use}", "prompt_format")
        sides = (suffix,) if suffix else ()
        return lambda prompt: encode(prompt, *sides)

    def _tokens(self, prompt: str | Sequence[int], field: str, encode: Encode) -> list[int]:
        if isinstance(prompt, str):
            return encode(prompt)
        self.check_tokens(prompt, field)
        return [int(token) for token in prompt]

    @functools.cached_property
    def _longest_token(self) -> int:
        """How many characters a token has at most; 0 is unknown."""
        token_bytes = getattr(self._llama.tokenizer, "token_bytes", tuple)
        return max(map(len, token_bytes()), default=0)


def contents(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the texts of messages."""
    for message in messages:
        content = message.get("content") or ""
        parts = [content] if isinstance(content, str) else [it.get("text") for it in content]
        yield from (part for part in parts if part)
