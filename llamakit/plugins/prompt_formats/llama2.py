"""The prompt format of Llama 2 chat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl
from llamakit.llama.dialog_checks import check_tags, check_turns

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
        check_tags(dialog, TAGS, "llama2")
        messages = _fold_system(dialog)
        check_turns(messages, "llama2")
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


@hookimpl
def register_prompt_formats(formats: Registrar[PromptFormatFactory]) -> None:
    """Offer ``llama2``."""

    def llama2(tokenizer: Tokenizer) -> PromptFormat:
        """Encode a dialog as Llama 2 chat was trained on."""
        return Llama2Format(tokenizer)

    formats.register("llama2", llama2, help="[INST] … [/INST], of Llama 2 chat")
