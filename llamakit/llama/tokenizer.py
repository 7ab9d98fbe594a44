"""Tokenizers and the Llama 3 chat format, as the reference's ``llama/tokenizer.py`` spells them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from llamakit.errors import UsageError
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.protocols import Dialog, Message, Role
from llamakit.protocols import Tokenizer as AnyTokenizer

__all__ = ["ChatFormat", "Dialog", "Message", "Role", "Tokenizer"]

T = TypeVar("T", bound="Tokenizer")
Special = Literal["all"] | Collection[str]

_INFILL_PIECES = {
    "prefix_id": "▁<PRE>",
    "middle_id": "▁<MID>",
    "suffix_id": "▁<SUF>",
    "eot_id": "▁<EOT>",
    "step_id": "<step>",
}
"""Code Llama's attributes, and the pieces whose token IDs they are."""
_LLAMA_3_TOKENS = {
    "eot_id": "<|eot_id|>",
    "eom_id": "<|eom_id|>",
    "python_tag_id": "<|python_tag|>",
}
"""The same of Llama 3.1 and later."""


class Tokenizer:
    """A tokenizer of any kind, with what the reference's tokenizers have.

    What else the tokenizer has, it passes on.

    Args:
        model_path: a tokenizer's file, of any kind that a plugin loads.
    Raises:
        TokenizerError: no plugin loads it.
    Source: ``llama/tokenizer.py`` of https://github.com/meta-llama/llama,
        https://github.com/meta-llama/codellama and https://github.com/meta-llama/llama3
    """

    pad_id: int
    """What the reference fills shorter prompts with. No prompt is filled here."""

    def __init__(self, model_path: str | os.PathLike[str]) -> None:
        self._wrap(default_toolkit().load_tokenizer(Path(model_path)))

    @classmethod
    def of(cls: type[T], tokenizer: AnyTokenizer) -> T:
        """Return a tokenizer that is loaded already as one of these."""
        if isinstance(tokenizer, cls):
            return tokenizer
        wrapped = cls.__new__(cls)
        wrapped._wrap(tokenizer.wrapped if isinstance(tokenizer, Tokenizer) else tokenizer)
        return wrapped

    def _wrap(self, tokenizer: AnyTokenizer) -> None:
        self.wrapped = tokenizer
        self.path, self.vocab_size = tokenizer.path, tokenizer.vocab_size
        self.bos_id, self.eos_id = tokenizer.bos_id, tokenizer.eos_id
        self.pad_id = getattr(tokenizer, "pad_id", -1)

    @property
    def n_words(self) -> int:
        """How many tokens it has; ``vocab_size`` here."""
        return self.vocab_size

    @property
    def stop_tokens(self) -> list[int]:
        """The tokens that end an answer."""
        return sorted(getattr(self.wrapped, "stop_ids", (self.eos_id,)))

    @property
    def special_tokens(self) -> dict[str, int]:
        """The token IDs, by name, that no text becomes unless ``allowed_special`` says so."""
        tell = getattr(self.wrapped, "special_ids", None)
        return dict(tell()) if tell else {}

    def encode(
        self,
        text: str | None = None,
        bos: bool = False,
        eos: bool = False,
        *,
        s: str | None = None,
        allowed_special: Special | None = None,
        disallowed_special: Special = (),
    ) -> list[int]:
        """Return the tokens of ``text``.

        Args:
            bos: put ``bos_id`` before them.
            eos: put ``eos_id`` behind them.
            s: ``text`` by the reference's name.
            allowed_special: names of special tokens that the text may become; ``all`` is each.
            disallowed_special: those that it may not hold.
        Raises:
            TypeError: it is no text, such as a list of texts.
            ValueError: the text has the name of a special token that is not allowed.
        """
        text = _one_of("text", text, s)
        if not isinstance(text, str):
            raise TypeError(f"text is a {type(text).__name__}; expected a str")
        special = self.special_tokens if allowed_special or disallowed_special else {}
        allowed = _chosen(allowed_special or (), special)
        for name in _chosen(disallowed_special, special).keys() - allowed:
            if name in text:
                raise ValueError(f"the text holds {name}, which disallowed_special lists")
        tokens = self._encode(text, allowed)
        # a copy of a long list keeps Python's lock from all other threads
        return [*[self.bos_id] * bos, *tokens, *[self.eos_id] * eos] if bos or eos else tokens

    def _encode(self, text: str, allowed: Mapping[str, int]) -> list[int]:
        if not allowed:
            return self.wrapped.encode(text)
        names = re.compile(f"({'|'.join(map(re.escape, sorted(allowed, key=len, reverse=True)))})")
        tokens: list[int] = []
        for part in filter(None, names.split(text)):
            tokens += [allowed[part]] if part in allowed else self.wrapped.encode(part)
        return tokens

    def decode(self, tokens: Sequence[int] | None = None, *, t: Sequence[int] | None = None) -> str:
        """Return the text of ``tokens``, or ``t``; control tokens and padding have none."""
        return self.wrapped.decode([it for it in _one_of("tokens", tokens, t) if it >= 0])

    def __getattr__(self, name: str) -> Any:
        """Return what the tokenizer has besides, or a token by the reference's attribute for it."""
        if name == "wrapped":  # while a copy of this object is being made
            raise AttributeError(name)
        if name in _INFILL_PIECES or name in _LLAMA_3_TOKENS:
            special = self.special_tokens
            return special.get(
                _LLAMA_3_TOKENS.get(name, ""), special.get(_INFILL_PIECES.get(name, ""))
            )
        return getattr(self.wrapped, name)


class ChatFormat:
    """Llama 3's dialogs, encoded part by part.

    Messages are trimmed, as the reference of Llama 3 does; Meta's later code does not.

    Source: ``ChatFormat`` in ``llama/tokenizer.py`` of https://github.com/meta-llama/llama3
    """

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        self.tokenizer = Tokenizer.of(tokenizer)

    def encode_header(self, message: Message) -> list[int]:
        """Return the tokens that say whose message follows."""
        special, encode = self.tokenizer.special_tokens, self.tokenizer.encode
        start, stop = special["<|start_header_id|>"], special["<|end_header_id|>"]
        return [start, *encode(message["role"]), stop, *encode("\n\n")]

    def encode_message(self, message: Message) -> list[int]:
        """Return the tokens of a message, with its header and its end."""
        content = self.tokenizer.encode(message["content"].strip())
        return [*self.encode_header(message), *content, self.tokenizer.eot_id]

    def encode_dialog_prompt(self, dialog: Dialog) -> list[int]:
        """Return the prompt that asks for the assistant's next message."""
        tokens = [self.tokenizer.bos_id]
        for message in dialog:
            tokens += self.encode_message(message)
        return tokens + self.encode_header({"role": "assistant", "content": ""})


def _one_of(name: str, value: Any, alias: Any) -> Any:
    """Return the argument that was given by one of its two names."""
    if (value is None) == (alias is None):
        raise TypeError(f"give {name}, once")
    return alias if value is None else value


def _chosen(names: Special, special: Mapping[str, int]) -> Mapping[str, int]:
    """Return the named special tokens. Raises UsageError for an unknown name."""
    if isinstance(names, str):
        if names != "all":
            raise UsageError(f'{names!r} is no set of special tokens: expected "all", or a set')
        return special
    return {name: special[name] for name in names if name in special}
