"""A rendered chat template as tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateSyntaxError

from llamakit.errors import (
    DialogError,
    FileFormatError,
    LlamakitError,
    PromptError,
    SpecialTagError,
)
from llamakit.plugins.prompt_formats.jinja.sandbox import ChatEnvironment, RaisedError
from llamakit.plugins.prompt_formats.jinja.template_file import TemplateFile
from llamakit.plugins.prompt_formats.jinja.user_text import Cover, CoveredText

if TYPE_CHECKING:
    from llamakit.protocols import Dialog, Tokenizer

ROLES = ("system", "user", "assistant")
TAG = re.compile(r"<\|[^<>|\s]+\|>|<</?\w+>>|</?[\w-]+>|\[/?[A-Z_]+\]|### ?\w+:")
"""What templates write at the ends of turns where the tokenizer has no token for it."""


class JinjaFormat:
    """A Hugging Face chat template, rendered in Jinja's sandbox.

    What the template writes becomes special tokens where it spells their names; what comes from a
    message never does.

    Source: ``apply_chat_template`` of transformers.
    """

    def __init__(self, tokenizer: Tokenizer, template: TemplateFile) -> None:
        self._tokenizer = tokenizer
        self._path = template.path
        self._environment = ChatEnvironment()
        try:
            self._template = self._environment.read(template.text)
        except TemplateSyntaxError as error:
            raise FileFormatError(
                f"{template.path}, line {error.lineno} of the template: {error.message}"
            ) from error
        self._special = _special_ids(tokenizer, template.tokens)
        names = {it: text for text, it in self._special.items()}
        self._names: dict[str, str] = {
            "bos_token": names.get(tokenizer.bos_id, ""),
            "eos_token": names.get(tokenizer.eos_id, ""),
            **template.tokens,
        }
        self.stop_tokens = self._stop_tokens()

    def encode(self, dialog: Dialog) -> list[int]:
        """Return the prompt that asks for the next assistant message.

        Raises:
            DialogError: the template refuses the dialog.
            SpecialTagError: what is a message's and what is the template's cannot be distinguished.
            PromptError: the template fails.
        """
        for number, message in enumerate(dialog, start=1):
            if message["role"] not in ROLES:
                raise DialogError(
                    f"message {number} has the role {message['role']!r}; known: {', '.join(ROLES)}"
                )
        parts = self._parts(dialog, answer=True)
        return [token for part in parts for token in self._encode_part(part)]

    def _encode_part(self, part: str | int) -> list[int]:
        if isinstance(part, int):
            return [part]
        tokens = self._tokenizer.encode(part)
        if not set(self._special.values()).isdisjoint(tokens):
            raise SpecialTagError(
                "a message holds the name of a special token, which this tokenizer makes its id "
                "of: write it in another way"
            )
        return tokens

    def _parts(self, dialog: Dialog, *, answer: bool) -> list[str | int]:
        """Render a dialog; return its special tokens and the strings between them.

        Args:
            answer: end with what asks for an answer.
        """
        contents = [message["content"] for message in dialog]
        spaces = {character for name in self._special for character in name if character.isspace()}
        cover = Cover(spaces, [*contents, *self._special])
        now = datetime.now()
        plain, covered = (
            self._render(
                [
                    {"role": it["role"], "content": text}
                    for it, text in zip(dialog, texts, strict=True)
                ],
                answer,
                now,
            )
            for texts in (contents, [CoveredText.of(text, cover) for text in contents])
        )
        if cover.off(covered) != plain:
            self._check_harmless(contents, plain, covered)
            covered = plain
        self._check_tags(dialog, covered)
        return [it if isinstance(it, int) else cover.off(it) for it in self._split(covered)]

    def _render(self, messages: Sequence[Mapping[str, str]], answer: bool, now: datetime) -> str:
        names: dict[str, Any] = {
            **self._names,
            **{"messages": messages, "tools": None, "documents": None},
            "add_generation_prompt": answer,
        }
        try:
            return self._environment.render_within_bounds(self._template, names, now)
        except RaisedError as error:
            raise DialogError(f"the chat template {self._path} says: {error.message}") from error
        except Exception as error:
            raise PromptError(
                f"the chat template {self._path} fails with {type(error).__name__}: {error}"
            ) from error

    def _split(self, text: str) -> list[str | int]:
        """Cut a string at the names of special tokens, the longest name first."""
        names = sorted(filter(str.strip, self._special), key=len, reverse=True)
        if not names:
            return [text] if text else []
        pieces = re.split(f"({'|'.join(map(re.escape, names))})", text)
        parts = [self._special[it] if at % 2 else it for at, it in enumerate(pieces)]
        return [part for part in parts if part != ""]

    def _check_harmless(self, contents: Sequence[str], plain: str, covered: str) -> None:
        """Let a template do with strings what covered ones do not stand, if it cannot matter.

        No text has a sign that names of special tokens are written with, and the same tokens come
        out either way.
        """
        signs = {it for name in self._special for it in name if not it.isalnum()}
        is_harmless = signs.isdisjoint("".join(contents)) and all(
            not name.isalnum() for name in self._special
        )
        ids = [[it for it in self._split(text) if isinstance(it, int)] for text in (plain, covered)]
        if not is_harmless or ids[0] != ids[1]:
            raise SpecialTagError(
                f"the chat template {self._path} changes the texts of messages in a way that hides "
                "where they begin and end, and a message has signs that special tokens are "
                f"written with ({' '.join(sorted(signs))}): write it without them"
            )

    def _check_tags(self, dialog: Dialog, covered: str) -> None:
        """Refuse a message with a tag that the template writes as text."""
        tags = set(TAG.findall(covered)) - set(self._special)
        for number, message in enumerate(dialog, start=1):
            for tag in tags:
                if tag in message["content"]:
                    raise SpecialTagError(
                        f"message {number} ({message['role']}) holds {tag}, which the chat "
                        f"template {self._path} writes around messages: the model would take it "
                        "for the end or the beginning of a turn; write it in another way"
                    )

    def _stop_tokens(self) -> tuple[int, ...]:
        """Find what ends an answer: EOS, and what the template writes behind one."""
        found = {self._tokenizer.eos_id}
        if (eos := self._names["eos_token"]) in self._special:
            found.add(self._special[eos])
        question, answer = "question", "answer"
        try:
            parts = self._parts(
                [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
                answer=False,
            )
        except LlamakitError:
            return tuple(found)
        for before, part in pairwise(parts):
            is_end = isinstance(before, str) and before.rstrip().endswith(answer)
            if is_end and isinstance(part, int):
                found.add(part)
        return tuple(found)


def _special_ids(tokenizer: Tokenizer, tokens: Mapping[str, str]) -> dict[str, int]:
    """Return the tokens that the template may write, by name; at least BOS and EOS."""
    tell = getattr(tokenizer, "special_ids", None)
    if tell is not None:
        return dict(tell())
    return {
        tokens.get("bos_token", "<s>"): tokenizer.bos_id,
        tokens.get("eos_token", "</s>"): tokenizer.eos_id,
    }
