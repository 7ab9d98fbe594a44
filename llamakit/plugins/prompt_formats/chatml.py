"""ChatML: every message between two tags, with its role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llamakit import hookimpl
from llamakit.errors import DialogError, SpecialTagError

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Dialog, PromptFormat, PromptFormatFactory, Tokenizer

START, END = "<|im_start|>", "<|im_end|>"
ROLES = ("system", "user", "assistant")


class ChatMLFormat:
    r"""``<|im_start|>role\ncontent<|im_end|>\n`` for each message, then the assistant's beginning.

    Where the tokenizer has tokens for the two tags, those are written, and a message may hold the
    tags as text. Where it has none, as Llama 2's, the tags are text themselves: then a message
    that holds one is refused, and the answer ends where the model writes one.

    Source: https://github.com/openai/openai-python/blob/v0.27.0/chatml.md
    """

    def __init__(self, tokenizer: Tokenizer, bos: bool = True) -> None:
        self._tokenizer = tokenizer
        self._bos = bos
        special: Mapping[str, int] = getattr(
            tokenizer, "special_ids", dict
        )()  # where it lists them
        self._tags = [special[tag] for tag in (START, END) if tag in special]
        self._is_text = len(self._tags) < 2
        self.stop_tokens = (tokenizer.eos_id, *([] if self._is_text else self._tags))
        self.stop_strings = (START, END) if self._is_text else ()

    def encode(self, dialog: Dialog) -> list[int]:
        """Return the prompt that asks for the next assistant message.

        Raises:
            SpecialTagError: a message's text holds a tag that the tokenizer knows as text only.
            DialogError: there is no message, or one of another role.
        """
        self._check(dialog)
        tokens = [self._tokenizer.bos_id] * self._bos
        if self._is_text:
            turns = [f"{START}{it['role']}\n{it['content']}{END}\n" for it in dialog]
            return tokens + self._tokenizer.encode(f"{''.join(turns)}{START}assistant\n")
        start, end = self._tags
        newline = self._tokenizer.encode("\n")
        for number, message in enumerate(dialog, start=1):
            text = self._tokenizer.encode(f"{message['role']}\n{message['content']}")
            if start in text or end in text:  # user-defined pieces: SentencePiece finds them
                raise _holds_tag(number, message["role"])
            tokens += [start, *text, end, *newline]
        return [*tokens, start, *self._tokenizer.encode("assistant\n")]

    def _check(self, dialog: Dialog) -> None:
        if not dialog:
            raise DialogError("the dialog has no message: give at least the user's")
        for number, message in enumerate(dialog, start=1):
            if message["role"] not in ROLES:
                raise DialogError(
                    f"message {number} has the role {message['role']!r}; the chatml format knows "
                    f"{', '.join(ROLES)}"
                )
            if self._is_text and (START in message["content"] or END in message["content"]):
                raise _holds_tag(number, message["role"])


def _holds_tag(number: int, role: str) -> SpecialTagError:
    return SpecialTagError(
        f"message {number} ({role}) holds {START} or {END}, which this tokenizer cannot tell from "
        "the tags of the chatml format: the model would take it for the end or the beginning of "
        "a turn; write it in another way"
    )


@hookimpl
def register_prompt_formats(formats: Registrar[PromptFormatFactory]) -> None:
    """Offer ``chatml``."""

    def chatml(tokenizer: Tokenizer, bos: bool = True) -> PromptFormat:
        """Encode a dialog as messages with their roles between tags.

        Args:
            bos: begin with BOS, which Llama models expect and ChatML itself does not have.
        """
        return ChatMLFormat(tokenizer, bos)

    formats.register("chatml", chatml, help="<|im_start|>role … <|im_end|>, of many fine-tunes")
