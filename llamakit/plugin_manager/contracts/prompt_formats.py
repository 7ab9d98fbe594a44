"""The contract of prompt formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llamakit.plugin_manager.factories import build
from llamakit.plugin_manager.registry import Entry
from llamakit.protocols import PromptFormat, Tokenizer


def stop_fault(prompt_format: Any, vocab_size: int) -> str:
    """Say what is wrong with the stop tokens and stop strings of a prompt format, or nothing."""
    tokens: Any = getattr(prompt_format, "stop_tokens", None)
    strings: Any = getattr(prompt_format, "stop_strings", ())
    if not _holds(tokens, lambda token: is_token(token, vocab_size)):
        expected = f"a sequence of {_token_ids(vocab_size)}"
        return f"has the stop_tokens {tokens!r:.60}; expected {expected}"
    if not _holds(strings, lambda string: isinstance(string, str) and string):
        expected = "a sequence of strings, none of them empty"
        return f"has the stop_strings {strings!r:.60}; expected {expected}"
    return ""


def encoding_fault(tokens: Any, method: str, vocab_size: int) -> str:
    """Say what is wrong with what a prompt format encoded something to, or nothing.

    Args:
        tokens: what it returned.
        method: that was called, such as ``encode``.
    """
    wrong = f"{tokens!r:.60}"
    if isinstance(tokens, list) and tokens:
        strays = [token for token in tokens if not is_token(token, vocab_size)]
        if not strays:
            return ""
        wrong = f"a list with {strays[0]!r:.60}"
    expected = f"a non-empty list of {_token_ids(vocab_size)}"
    return f"returned {wrong} from {method}; expected {expected}"


def is_token(token: object, vocab_size: int) -> bool:
    """Return whether it is a token ID of a vocabulary."""
    return type(token) is int and 0 <= token < vocab_size


def build_format(entry: Entry, options: Mapping[str, object], tokenizer: Tokenizer) -> PromptFormat:
    """Build a prompt format; a third-party one is checked whenever it encodes.

    Args:
        options: as ``build`` takes them.
        tokenizer: the factory is called with it; its vocabulary is what the format may use.
    Raises: as ``build``, and
        PluginError: its stop tokens or stop strings break the contract.
    """
    prompt_format: PromptFormat = build(entry, options, tokenizer)
    if entry.source.builtin:
        return prompt_format
    try:
        fault = stop_fault(prompt_format, tokenizer.vocab_size)
    except Exception as error:
        raise entry.failure(error) from error
    if fault:
        raise entry.breach(fault)
    return _CheckedFormat(prompt_format, entry, tokenizer.vocab_size)


class _CheckedFormat:
    """A third-party prompt format that may encode to token IDs only."""

    def __init__(self, prompt_format: PromptFormat, entry: Entry, vocab_size: int) -> None:
        self._format = prompt_format
        self._entry = entry
        self._vocab_size = vocab_size

    @property
    def stop_tokens(self) -> Any:
        return self._format.stop_tokens

    def encode(self, dialog: Any) -> list[int]:
        return self._checked("encode", self._format.encode, dialog)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._format, name)
        if name in ("encode_text", "encode_gap"):
            return lambda *texts: self._checked(name, value, *texts)
        return value

    def _checked(self, method: str, encode: Callable[..., Any], *arguments: Any) -> list[int]:
        tokens: list[int] = encode(*arguments)
        if fault := encoding_fault(tokens, method, self._vocab_size):
            raise self._entry.breach(fault)
        return tokens


def _token_ids(vocab_size: int) -> str:
    return f"token IDs, which are ints from 0 to {vocab_size - 1}"


def _holds(values: Any, is_good: Callable[[Any], object]) -> bool:
    """Return whether it is a sequence of good values; a string counts as none."""
    is_sequence = isinstance(values, Iterable) and not isinstance(values, str)
    return is_sequence and all(map(is_good, values))
