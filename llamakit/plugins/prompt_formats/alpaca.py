"""The prompt format of Stanford Alpaca and of the many models that were trained like it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl
from llamakit.llama.dialog_checks import check_tags, check_turns

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Dialog, Message, PromptFormat, PromptFormatFactory, Tokenizer

INSTRUCTION, INPUT, RESPONSE = "### Instruction:", "### Input:", "### Response:"
TAGS = (INSTRUCTION, RESPONSE)
TASK = "Below is an instruction that describes a task"
COMPLETE = "Write a response that appropriately completes the request."
ALONE = f"{TASK}. {COMPLETE}"
WITH_INPUT = f"{TASK}, paired with an input that provides further context. {COMPLETE}"


class AlpacaFormat:
    """A sentence about the task, ``### Instruction:``, the message, ``### Response:``.

    Alpaca knows one instruction and its answer. A system message takes the place of the sentence.
    A message with ``### Input:`` on a line of its own is an instruction with an input. Of a longer
    dialog, every finished pair is followed by EOS, and only the first has the sentence.

    Source: ``PROMPT_DICT`` in ``train.py`` of https://github.com/tatsu-lab/stanford_alpaca
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
        check_tags(dialog, TAGS, "alpaca")
        system, messages = _split_system(dialog)
        check_turns(messages, "alpaca")
        encode = self._tokenizer.encode
        header = f"{_header(messages[0]) if system is None else system.strip()}\n\n"
        tokens: list[int] = []
        for user, answer in zip(messages[:-1:2], messages[1::2], strict=True):
            pair = f"{header}{_question(user)}{answer['content'].strip()}"
            tokens += encode(pair, bos=not tokens, eos=True)
            header = ""
        return tokens + encode(header + _question(messages[-1]), bos=not tokens)


def _header(message: Message) -> str:
    return WITH_INPUT if INPUT in message["content"].splitlines() else ALONE


def _question(message: Message) -> str:
    return f"{INSTRUCTION}\n{message['content'].strip()}\n\n{RESPONSE}"


def _split_system(dialog: Dialog) -> tuple[str | None, list[Message]]:
    messages = list(dialog)
    if messages and messages[0]["role"] == "system":
        return messages[0]["content"], messages[1:]
    return None, messages


@hookimpl
def register_prompt_formats(formats: Registrar[PromptFormatFactory]) -> None:
    """Offer ``alpaca``."""

    def alpaca(tokenizer: Tokenizer) -> PromptFormat:
        """Encode a dialog as an instruction and its response."""
        return AlpacaFormat(tokenizer)

    formats.register("alpaca", alpaca, help="'### Instruction:' and '### Response:', of Alpaca")
