"""A rendered chat template as tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llamakit.errors import (
    DialogError,
    FileFormatError,
    PromptError,
    SpecialTagError,
)
from llamakit.plugins.prompt_formats.jinja.renderer import (
    Renderer,
    RenderingError,
    shared_renderer,
)
from llamakit.plugins.prompt_formats.jinja.template_file import TemplateFile
from llamakit.plugins.prompt_formats.jinja.user_text import is_unicode
from llamakit.printable import printable

if TYPE_CHECKING:
    from llamakit.protocols import Dialog, Tokenizer

ROLES = ("system", "user", "assistant")
_TAKEN = (
    *("messages", "add_generation_prompt", "tools", "documents", "strftime_now"),
    *("bos_token", "eos_token", "raise_exception"),
)
"""Variables that a template is always called with."""


class JinjaFormat:
    """A Hugging Face chat template, rendered in Jinja's sandbox in another process.

    What the template writes becomes special tokens where it spells their names; what comes from a
    message never does.

    Args:
        renderer: what renders it; none takes the one that all formats of this process share.
        variables: of the template, besides those that it is always called with.
    Raises:
        FileFormatError: it is no template.
        PromptError: a question and an answer are too much for it.
    Source: ``apply_chat_template`` of transformers.
    """

    variables = None
    """The names that ``with_variables`` takes: any."""
    roles: Sequence[str] = ROLES
    """Those that a message may have."""
    tools: Sequence[Any] | None = None
    """What the template is called with."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: TemplateFile,
        renderer: Renderer | None = None,
        variables: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._tokenizer = tokenizer
        self._file = template
        self._path = template.path
        self.chat_template = template.text
        self._renderer = renderer or shared_renderer()
        self._special = _special_ids(tokenizer, template.tokens)
        self._special_ids = frozenset(self._special.values())
        names = {it: text for text, it in self._special.items()}
        self._names: dict[str, Any] = {
            **variables,
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
            if message["role"] not in self.roles:
                known = ", ".join(self.roles)
                raise DialogError(
                    f"message {number} has the role {message['role']!r}; known: {known}"
                )
            if not is_unicode(message["content"]):
                raise DialogError(
                    f"message {number} has a lone surrogate, such as \\ud800, which is no "
                    f"character and cannot be given to the chat template {self._path}"
                )
        parts = self._parts(dialog, answer=True)
        return [token for part in parts for token in self._encode_part(part)]

    def with_variables(self, variables: Mapping[str, Any]) -> JinjaFormat:
        """Return the format with variables of the template, such as ``enable_thinking``.

        Args:
            variables: strings, numbers, booleans and null by their names. What a template writes
                becomes special tokens, so a string must not hold the name of one.
        Raises:
            DialogError: one is something else, or has a name that is taken.
        """
        for name, value in variables.items():
            if name in _TAKEN or not isinstance(value, str | int | float | bool | None):
                raise DialogError(
                    f"the variable {printable(name)!r} of the chat template is taken, or no "
                    "string, number, boolean or null"
                )
            if isinstance(value, str) and any(tag in value for tag in self._special):
                raise SpecialTagError(
                    f"the variable {printable(name)!r} of the chat template holds the name of a "
                    "special token: write it in another way"
                )
            if isinstance(value, str) and not is_unicode(value):
                raise DialogError(f"the variable {printable(name)!r} has a lone surrogate")
        return type(self)(self._tokenizer, self._file, self._renderer, variables)

    def _encode_part(self, part: str | int) -> list[int]:
        if isinstance(part, int):
            return [part]
        tokens = self._tokenizer.encode(part)
        if not self._special_ids.isdisjoint(tokens):
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
        pieces = self._render(dialog, answer)
        parts = [self._special[piece] if at % 2 else piece for at, piece in enumerate(pieces)]
        return [part for part in parts if part != ""]

    def _messages(self, dialog: Dialog) -> list[dict[str, Any]]:
        """Return a dialog as the template finds it."""
        return [{"role": it["role"], "content": it["content"]} for it in dialog]

    def _render(self, dialog: Dialog, answer: bool) -> list[str]:
        request = {
            "template": self.chat_template,
            "names": self._names,
            "messages": self._messages(dialog),
            "tools": self.tools,
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
            kind = SpecialTagError if error.kind == "ambiguous" else PromptError
            raise kind(f"the chat template {self._path} {message}") from error

    def _stop_tokens(self) -> tuple[int, ...]:
        """Find what ends an answer: EOS, and what the template writes behind one."""
        tokens = {self._tokenizer.eos_id}
        if (eos := self._names["eos_token"]) in self._special:
            tokens.add(self._special[eos])
        question, answer = "question", "answer"
        try:
            parts = self._parts(
                [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
                answer=False,
            )
        except PromptError as error:
            if getattr(error.__cause__, "kind", "") == "stopped":
                raise
            return tuple(tokens)
        for before, part in pairwise(parts):
            is_end = isinstance(before, str) and before.rstrip().endswith(answer)
            if is_end and isinstance(part, int):
                tokens.add(part)
        return tuple(tokens)


def _special_ids(tokenizer: Tokenizer, tokens: Mapping[str, str]) -> dict[str, int]:
    """Return the tokens that the template may write, by name; at least BOS and EOS."""
    if hasattr(tokenizer, "special_ids"):
        return dict(tokenizer.special_ids())
    return {
        tokens.get("bos_token", "<s>"): tokenizer.bos_id,
        tokens.get("eos_token", "</s>"): tokenizer.eos_id,
    }
