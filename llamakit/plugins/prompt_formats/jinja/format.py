"""A rendered chat template as tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from llamakit.errors import (
    DialogError,
    FileFormatError,
    PromptError,
    SpecialTagError,
)
from llamakit.plugins.prompt_formats.jinja.renderer import (
    Renderer,
    Rendering,
    RenderingError,
    shared_renderer,
)
from llamakit.plugins.prompt_formats.jinja.template_file import TemplateFile
from llamakit.plugins.prompt_formats.jinja.user_text import is_unicode

if TYPE_CHECKING:
    from llamakit.protocols import Dialog, Tokenizer

ROLES = ("system", "user", "assistant")
TAG = re.compile(r"<\|[^<>|\s]+\|>|<</?\w+>>|</?[\w-]+>|\[/?[A-Z_]+\]|### ?\w+:")
"""What templates write at the ends of turns where the tokenizer has no token for it."""
TAG_ANYWHERE = re.compile(f"(?=({TAG.pattern}))")
"""A tag within another one, too. Each position has one at most, so that all are found at once."""


class JinjaFormat:
    """A Hugging Face chat template, rendered in Jinja's sandbox in another process.

    What the template writes becomes special tokens where it spells their names; what comes from a
    message never does.

    Args:
        renderer: what renders it; none takes the one that all formats of this process share.
    Raises:
        FileFormatError: it is no template.
        PromptError: a question and an answer are too much for it.
    Source: ``apply_chat_template`` of transformers.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: TemplateFile, renderer: Renderer | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._path = template.path
        self._template = template.text
        self._renderer = renderer or shared_renderer()
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
            PromptError: the template fails, or takes too much time or memory.
        """
        for number, message in enumerate(dialog, start=1):
            if message["role"] not in ROLES:
                raise DialogError(
                    f"message {number} has the role {message['role']!r}; known: {', '.join(ROLES)}"
                )
            if not is_unicode(message["content"]):
                raise DialogError(
                    f"message {number} has a lone surrogate, such as \\ud800, which is no "
                    f"character and cannot be given to the chat template {self._path}"
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
        rendering = self._render(dialog, answer)
        cover = str.maketrans(rendering.hidden, rendering.shown)
        covered = rendering.covered
        if covered.translate(cover) != rendering.plain:
            self._check_harmless(contents, rendering)
            covered = rendering.plain
        self._check_tags(dialog, covered)
        return [
            part if isinstance(part, int) else part.translate(cover)
            for part in self._split(covered)
        ]

    def _render(self, dialog: Dialog, answer: bool) -> Rendering:
        request = {
            "template": self._template,
            "names": self._names,
            "roles": [message["role"] for message in dialog],
            "contents": [message["content"] for message in dialog],
            "special": [*self._special],
            "answer": answer,
            "now": datetime.now().isoformat(),
        }
        try:
            return self._renderer.render(request)
        except RenderingError as error:
            message = "".join(it if it.isprintable() else " " for it in str(error)[:500])
            if error.kind == "syntax":
                raise FileFormatError(f"{self._path}, {message}") from error
            if error.kind == "raised":
                raise DialogError(f"the chat template {self._path} says: {message}") from error
            raise PromptError(f"the chat template {self._path} {message}") from error

    def _split(self, text: str) -> list[str | int]:
        """Cut a string at the names of special tokens, the longest name first."""
        names = sorted(filter(str.strip, self._special), key=len, reverse=True)
        if not names:
            return [text] if text else []
        pieces = re.split(f"({'|'.join(map(re.escape, names))})", text)
        parts = [self._special[it] if at % 2 else it for at, it in enumerate(pieces)]
        return [part for part in parts if part != ""]

    def _check_harmless(self, contents: Sequence[str], rendering: Rendering) -> None:
        """Let a template do with strings what covered ones do not stand, if it cannot matter.

        No text has a sign that names of special tokens are written with, and the same tokens come
        out either way.
        """
        signs = {it for name in self._special for it in name if not it.isalnum()}
        is_harmless = signs.isdisjoint("".join(contents)) and all(
            not name.isalnum() for name in self._special
        )
        texts = (rendering.plain, rendering.covered)
        ids = [[it for it in self._split(text) if isinstance(it, int)] for text in texts]
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
            for tag in TAG_ANYWHERE.findall(message["content"]):
                if tag in tags:
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
        except PromptError as error:
            if getattr(error.__cause__, "kind", "") == "stopped":
                raise
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
