"""The prompt format of Llama 2 chat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl
from llamakit.errors import DialogError, SpecialTagError

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Dialog, Message, PromptFormat, PromptFormatFactory, Tokenizer

B_INST, E_INST = "[INST]", "[/INST]"
B_SYS, E_SYS = "<<SYS>>\n", "\n<</SYS>>\n\n"
TAGS = (B_INST, E_INST, B_SYS.strip(), E_SYS.strip())


class Llama2Format:
    """``[INST] <<SYS>> … <</SYS>> user [/INST] assistant``, each pair with BOS and EOS.

    Source: ``chat_completion`` in the reference's ``llama/generation.py``.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.stop_tokens = (tokenizer.eos_id,)

    def encode(self, dialog: Dialog) -> list[int]:
        """Return the prompt that asks for the next assistant message.

        Raises:
            SpecialTagError: a message's text holds one of the tags.
            DialogError: not system (once, first), then user and assistant in turn, user last.
        """
        _check_tags(dialog)
        messages = _fold_system(dialog)
        _check_roles(messages)
        encode = self._tokenizer.encode
        tokens = []
        for user, answer in zip(messages[:-1:2], messages[1::2], strict=True):
            pair = f"{_question(user)} {answer['content'].strip()} "
            tokens += encode(pair, bos=True, eos=True)
        return tokens + encode(_question(messages[-1]), bos=True)


def _question(message: Message) -> str:
    return f"{B_INST} {message['content'].strip()} {E_INST}"


def _fold_system(dialog: Dialog) -> list[Message]:
    """Put a leading system message into the first user message."""
    messages = list(dialog)
    if len(messages) > 1 and messages[0]["role"] == "system":
        content = B_SYS + messages[0]["content"] + E_SYS + messages[1]["content"]
        messages[:2] = [{"role": messages[1]["role"], "content": content}]
    return messages


def _check_tags(dialog: Dialog) -> None:
    for number, message in enumerate(dialog, start=1):
        for tag in TAGS:
            if tag in message["content"]:
                raise SpecialTagError(
                    f"message {number} ({message['role']}) holds {tag}, a tag of the llama2 "
                    "format: the model would take it for the end or the beginning of a turn; "
                    "write it in another way"
                )


def _check_roles(messages: list[Message]) -> None:
    for number, message in enumerate(messages):
        expected = "assistant" if number % 2 else "user"
        if message["role"] != expected:
            article = "an" if message["role"] == "assistant" else "a"
            raise DialogError(
                f"{article} {message['role']} message stands where the llama2 format wants the "
                f"{expected}'s: first an optional system message, then user and assistant in turn"
            )
    if len(messages) % 2 == 0:
        raise DialogError("the dialog has to end with a user message, the one to be answered")


@hookimpl
def register_prompt_formats(formats: Registrar[PromptFormatFactory]) -> None:
    """Offer ``llama2``."""

    def llama2(tokenizer: Tokenizer) -> PromptFormat:
        """Encode a dialog as Llama 2 chat was trained on."""
        return Llama2Format(tokenizer)

    formats.register("llama2", llama2, help="[INST] … [/INST], of Llama 2 chat")
