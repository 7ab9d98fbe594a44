"""Checks of prompts: strings, lists and dialogs that callers give, and the tokens of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from llamakit.errors import DialogError, PromptError, PromptTooLongError
from llamakit.llama.message_content import content_of


def check_unicode(text: str, source: str) -> None:
    """Refuse text that was no UTF-8 when it was read, or that UTF-8 cannot write.

    Args:
        text: bytes that are not UTF-8 are surrogates in it.
        source: what it is, as the subject of a sentence.
    Raises:
        PromptError: it has a surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"{source} is not UTF-8 text: character {error.start + 1} is "
            f"{text[error.start]!r}, which no tokenizer takes"
        ) from None


def check_prompt_string(value: object) -> None:
    """Refuse a prompt that is not a string. Raises PromptError."""
    if not isinstance(value, str):
        raise PromptError(f"a prompt is a string, not a {type(value).__name__}")
    check_unicode(value, "the prompt")


def check_prompts(value: object) -> None:
    """Refuse prompts that are not a list of strings. Raises PromptError."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise PromptError(
            f'the prompts are a list of strings, not a {type(value).__name__}: ["Once upon a time"]'
        )
    for prompt in value:
        check_prompt_string(prompt)


def check_messages(dialog: object) -> None:
    """Refuse a dialog that is not a list of messages with a role and a content.

    Raises:
        DialogError: it is something else.
    """
    expected = 'expected a list of {"role": "user", "content": "text"}'
    if isinstance(dialog, str | Mapping) or not isinstance(dialog, Iterable):
        one = "; where several dialogs are wanted, one is [dialog]"
        hint = one if isinstance(dialog, Mapping) else ""
        raise DialogError(f"a dialog is no {type(dialog).__name__}: {expected}{hint}")
    for number, message in enumerate(dialog, start=1):
        if not isinstance(message, Mapping):
            raise DialogError(f"message {number} is a {type(message).__name__}: {expected}")
        for key, text in (("role", message.get("role")), ("content", content_of(message))):
            if not isinstance(text, str):
                raise DialogError(f"message {number} has no {key} that is a string: {expected}")
            check_unicode(message[key], f"message {number}")


def check_prompt(
    prompt: Sequence[int], context: int, vocabulary: int, number: int = 1, count: int = 1
) -> None:
    """Refuse a prompt that cannot be answered.

    Args:
        context: how many tokens the prompt and its answer may have.
        vocabulary: how many tokens the model has.
        number: which prompt it is, from 1.
        count: how many there are.
    Raises:
        PromptTooLongError: it fills the context.
        PromptError: it has a token outside of the model's vocabulary.
    """
    which = f"prompt {number} of {count}" if count > 1 else "the prompt"
    if len(prompt) >= context:
        raise PromptTooLongError(
            f"{which} has {len(prompt)} tokens and the context holds {context}, answer "
            "included: shorten it or raise --max-seq-len"
        )
    if max(prompt, default=0) >= vocabulary:
        raise PromptError(
            f"{which} has the token ID {max(prompt)}, and the model has {vocabulary} tokens: its "
            "tokenizer files are another model's"
        )
