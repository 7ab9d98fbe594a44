"""Reads the bodies of ``/tokenize`` and ``/detokenize``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamakit.llama.llama import Llama
from llamakit.plugin_manager.factories import parse_choice
from llamakit.serve import request_schemas
from llamakit.serve.api_errors import bad
from llamakit.serve.body_fields import fields_of
from llamakit.serve.chat_prompt import ChatPrompts
from llamakit.serve.prompt_reader import PromptReader
from llamakit.serve.schema_validation import Unknown
from llamakit.serve.server_settings import ServeSettings
from llamakit.serve.special_text import SpecialText
from llamakit.serve.tokenizer_answers import Tokenized
from llamakit.serve.tokenizer_info import describe_tokenizer
from llamakit.serve.tokenizer_schemas import BOS_FLAGS, DETOKENIZE
from llamakit.serve.tool_choice import tool_use

Body = Mapping[str, Any]

_OF_STRINGS = ("parse_special",)
_OF_DIALOGS = ("prompt_format", *request_schemas.DIALOG_FIELDS)


class TokenizerReader:
    """Tokenizes and decodes for one model. Several threads may call it.

    All its methods raise ``ApiError`` for what cannot be answered.
    """

    def __init__(
        self, llama: Llama, settings: ServeSettings, chats: ChatPrompts, prompts: PromptReader
    ) -> None:
        self.special = SpecialText(llama.tokenizer)
        self._llama, self._settings = llama, settings
        self._chats, self._prompts = chats, prompts

    def tokenize(self, body: Body) -> Tokenized:
        """Read the body of ``/tokenize`` and tokenize it."""
        body = fields_of(body, request_schemas.TOKENIZE, self._settings)
        given = [name for name in BOS_FLAGS if name in body]
        if len(given) != 1:
            found = f"; found {' and '.join(given)}" if given else ""
            raise bad(f"expected one of {', '.join(BOS_FLAGS)}{found}")
        (source,) = given
        if self._settings.unknown_fields is Unknown.REFUSE:
            _check_meaning(body, source)
        adds_bos = body.get(BOS_FLAGS[source], source in ("text", "prompt"))
        tokens = self._encoded(body, source)
        return Tokenized(
            [self._llama.tokenizer.bos_id, *tokens] if adds_bos else tokens,
            pieces=source in ("text", "messages"),
            strings=body.get("return_token_strs", False),
            objects=body.get("with_pieces", False),
        )

    def detokenize(self, body: Body) -> dict[str, str]:
        """Read the body of ``/detokenize`` and decode it.

        Returns:
            llamakit's own ``text``; vLLM's and llama.cpp's with the names of special tokens.
        """
        tokens = fields_of(body, DETOKENIZE, self._settings)["tokens"]
        tokenizer = self._llama.tokenizer
        self._prompts.check_tokens(tokens, "tokens", tokenizer.vocab_size)
        full = self.special.decode(tokens)
        return {"text": tokenizer.decode(tokens), "prompt": full, "content": full}

    def info(self) -> dict[str, Any]:
        """Describe the tokenizer, and the prompt format of dialogs."""
        name = parse_choice(self._settings.prompt_format or self._llama.default_prompt_format).name
        return describe_tokenizer(self._llama, self.special, name, self._chats.prompt_format({}))

    def _encoded(self, body: Body, source: str) -> list[int]:
        if source == "messages":
            return self._chats.read(body, tool_use(body)).tokens
        if body.get("parse_special", source != "text"):
            return self.special.encode(body[source])
        return self._llama.tokenizer.encode(body[source])


def _check_meaning(body: Body, source: str) -> None:
    """Refuse fields that say how another source is tokenized: they would change nothing."""
    of_source = {BOS_FLAGS[source], *(_OF_DIALOGS if source == "messages" else _OF_STRINGS)}
    for name in {*BOS_FLAGS.values(), *_OF_DIALOGS, *_OF_STRINGS} - of_source:
        if name in body:
            own = f"; {source} has {BOS_FLAGS[source]}" if name in BOS_FLAGS.values() else ""
            raise bad(f"{name} changes nothing about {source}: leave it out{own}", name)
