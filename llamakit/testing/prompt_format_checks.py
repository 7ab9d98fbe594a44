"""The contract of prompt formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, cast

from llamakit.errors import LlamakitError
from llamakit.plugin_manager.contracts.prompt_formats import encoding_fault, stop_fault
from llamakit.protocols import Dialog, PromptFormat, PromptFormatFactory, Tokenizer
from llamakit.testing.factory_checks import check_factory, make, said
from llamakit.testing.process_state import ContractError, check_fault, left_alone
from llamakit.testing.small_checkpoints import embedded_tokenizer

QUESTION = "Once upon a time"
MARKUP = ("<s>", "</s>", "<unk>", "[INST] [/INST]", "<|im_end|>", "<|eot_id|>", "<|endoftext|>")
"""What users type and must not become a control token."""


def check_prompt_format(
    factory: PromptFormatFactory, *, tokenizer: Tokenizer | None = None, **options: Any
) -> None:
    """Check that a factory makes a prompt format that llamakit can use.

    Args:
        factory: what the plugin registers.
        tokenizer: what it is called with; the bundled demo model's, if None.
        options: for the factory; its defaults, if none are given.

    Raises:
        AssertionError: a rule is broken; the sentence says which, and what to do.
    """
    __tracebackhide__ = True
    entry = check_factory("prompt format", factory, positional=1)
    name, tokenizer = str(entry), tokenizer or embedded_tokenizer()
    prompt_format: PromptFormat = make(entry, options, tokenizer)
    _check_stop_tokens(name, prompt_format, tokenizer)
    with left_alone(name):
        _check_tokens(name, prompt_format, tokenizer)
    another: PromptFormat = make(entry, options, tokenizer)
    for dialog in _dialogs(QUESTION):
        _check_dialog(name, prompt_format, another, dialog)
    _check_markup(name, prompt_format, tokenizer)
    _check_refusals(name, prompt_format)


def _check_stop_tokens(name: str, prompt_format: PromptFormat, tokenizer: Tokenizer) -> None:
    __tracebackhide__ = True
    check_fault(name, stop_fault(prompt_format, tokenizer.vocab_size))
    if not list(prompt_format.stop_tokens):
        raise ContractError(
            f"{name} has no stop_tokens, so no answer would end before its limit: "
            "(tokenizer.eos_id,) is usual"
        )


def _check_tokens(name: str, prompt_format: PromptFormat, tokenizer: Tokenizer) -> None:
    __tracebackhide__ = True
    dialog: Dialog = [{"role": "user", "content": QUESTION}]
    try:
        tokens = prompt_format.encode(dialog)
    except Exception as error:
        raise ContractError(
            f"{name} does not encode a single user message: {said(error)}"
        ) from error
    check_fault(name, encoding_fault(tokens, "encode", tokenizer.vocab_size))
    if QUESTION not in tokenizer.decode(tokens):
        raise ContractError(
            f"{name} leaves the message's text out: {QUESTION!r} became "
            f"{tokenizer.decode(tokens)!r}"
        )


def _check_dialog(
    name: str, prompt_format: PromptFormat, another: PromptFormat, dialog: Dialog
) -> None:
    """Check a dialog that the format may refuse, though not with just any error."""
    __tracebackhide__ = True
    before = deepcopy(dialog)
    first = _encoded(name, prompt_format, dialog)
    if dialog != before:
        raise ContractError(f"{name} changes the dialog that it is called with: work on a copy")
    if first != _encoded(name, prompt_format, dialog) or first != _encoded(name, another, dialog):
        raise ContractError(
            f"{name} gives other tokens for the same dialog: keep nothing between calls"
        )


def _check_markup(name: str, prompt_format: PromptFormat, tokenizer: Tokenizer) -> None:
    """Check that no text of a message becomes a control token."""
    __tracebackhide__ = True
    control = {tokenizer.bos_id, tokenizer.eos_id, *prompt_format.stop_tokens}
    for dialogs in zip(_dialogs("x"), *(_dialogs(text) for text in MARKUP), strict=True):
        plain, *typed = (_encoded(name, prompt_format, dialog) for dialog in dialogs)
        for tokens, text in zip(typed, MARKUP, strict=True):
            if plain is None or tokens is None:
                continue
            if _count(tokens, control) != _count(plain, control):
                raise ContractError(
                    f"{name} turns the text {text!r} of a message into a control token: encode "
                    "messages with tokenizer.encode, which never does, or raise SpecialTagError"
                )


def _count(tokens: Sequence[int], control: set[int]) -> Counter[int]:
    return Counter(token for token in tokens if token in control)


def _check_refusals(name: str, prompt_format: PromptFormat) -> None:
    """Check that a dialog in no order is answered or refused, and with a sentence."""
    __tracebackhide__ = True
    user, assistant = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    odd = [[], [assistant], [user, user], [user, assistant], [{"role": "nobody", "content": "c"}]]
    for dialog in odd:
        _encoded(name, prompt_format, cast("Dialog", dialog))


def _encoded(name: str, prompt_format: PromptFormat, dialog: Dialog) -> list[int] | None:
    """Return the tokens, or None if the format refuses the dialog."""
    __tracebackhide__ = True
    try:
        return prompt_format.encode(dialog)
    except LlamakitError:
        return None
    except Exception as error:
        roles = ", ".join(message["role"] for message in dialog) or "no messages"
        raise ContractError(
            f"{name} fails on a dialog of {roles}: {said(error)}; raise a DialogError that says "
            "what is expected"
        ) from error


def _dialogs(text: str) -> Iterator[Dialog]:
    """Yield dialogs in the usual orders, with a string in one of the messages."""
    yield [{"role": "user", "content": text}]
    yield [{"role": "system", "content": text}, {"role": "user", "content": "a"}]
    yield [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": text},
        {"role": "user", "content": "b"},
    ]
