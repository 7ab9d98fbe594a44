"""Checks what strangers' exporters, formats and drafters hand back; built-ins are tested."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import index
from pathlib import Path
from typing import Any

from llamakit.errors import PluginError
from llamakit.plugin_manager.factories import build
from llamakit.plugin_manager.registry import Entry
from llamakit.protocols import Drafter, PromptFormat, Tokenizer


def check_export(entry: Entry, report: Any, destination: Path) -> None:
    """Check that an exporter's report can be told and that something was made.

    Args:
        entry: the exporter.
        report: what it returned.
        destination: where it was asked to write.

    Raises:
        PluginError: it is not so; the sentence names the plugin.
    """
    if entry.source.builtin:
        return
    if not isinstance(report, Mapping):
        fault = f"returned {type(report).__name__}; expected a mapping that reports what was done"
    elif reason := _not_json(report):
        fault = f"returned a report that is no JSON ({reason}); expected texts, numbers and lists"
    elif not destination.exists():
        fault = "made nothing at the destination that it was given"
    else:
        return
    raise PluginError(f"the {entry} of the {entry.source} {fault}: tell its author")


def _not_json(report: Mapping[str, Any]) -> str:
    """Say why a report cannot be written as JSON, or nothing if it can."""
    try:
        json.dumps({**report})
    except (TypeError, ValueError, RecursionError) as error:
        return str(error)
    return ""


def build_format(entry: Entry, options: Mapping[str, object], tokenizer: Tokenizer) -> PromptFormat:
    """Build a prompt format; a stranger's is checked whenever it encodes.

    Args:
        options: as ``build`` takes them.
        tokenizer: what it is handed; its ids are the ones there are.
    Raises: as ``build``, and
        PluginError: it has no ``stop_tokens``, they are no ids, or ``stop_strings`` are no texts.
    """
    made: PromptFormat = build(entry, options, tokenizer)
    if entry.source.builtin:
        return made
    checked = _CheckedFormat(made, entry, tokenizer.vocab_size)
    checked.check_stops()
    return checked


class _CheckedFormat:
    """A stranger's prompt format: what it encodes to has to be ids."""

    def __init__(self, made: PromptFormat, entry: Entry, vocab_size: int) -> None:
        self._made = made
        self._entry = entry
        self._vocab_size = vocab_size

    def check_stops(self) -> None:
        try:
            tokens: Any = getattr(self._made, "stop_tokens", None)
            strings: Any = getattr(self._made, "stop_strings", ())
        except Exception as error:
            raise self._entry.failure(error) from error
        if not _holds(tokens, self._is_id):
            raise self._fault(f"has the stop_tokens {tokens!r:.60}", "a sequence of")
        if not _holds(strings, lambda it: isinstance(it, str) and it):
            raise PluginError(
                f"the {self._entry} of the {self._entry.source} has the stop_strings "
                f"{strings!r:.60}; expected a sequence of texts, none of them empty: "
                "tell its author"
            )

    @property
    def stop_tokens(self) -> Any:
        return self._made.stop_tokens

    def encode(self, dialog: Any) -> list[int]:
        return self._checked("encode", self._made.encode, dialog)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._made, name)
        if name == "encode_text":
            return lambda text: self._checked(name, value, text)
        return value

    def _checked(self, name: str, encode: Callable[[Any], Any], asked: Any) -> list[int]:
        tokens = encode(asked)
        if isinstance(tokens, list) and tokens and all(map(self._is_id, tokens)):
            return tokens
        found = f"{tokens!r:.60}"
        if isinstance(tokens, list) and tokens:
            found = f"a list with {next(it for it in tokens if not self._is_id(it))!r:.60}"
        raise self._fault(f"returned {found} from {name}", "a non-empty list of")

    def _is_id(self, token: object) -> bool:
        return type(token) is int and 0 <= token < self._vocab_size

    def _fault(self, fault: str, expected: str) -> PluginError:
        return PluginError(
            f"the {self._entry} of the {self._entry.source} {fault}; expected {expected} ids, "
            f"which are ints from 0 to {self._vocab_size - 1}: tell its author"
        )


def _holds(found: Any, is_good: Callable[[Any], object]) -> bool:
    """Tell whether it is a sequence of what is good; a text is none, but of letters."""
    return isinstance(found, Iterable) and not isinstance(found, str) and all(map(is_good, found))


def checked_drafter(made: Drafter, entry: Entry) -> Drafter:
    """Have a stranger's drafter checked whenever it is asked: what it proposes has to be ids."""
    return _CheckedDrafter(made, entry)


class _CheckedDrafter:
    """A stranger's drafter: what it proposes has to be ints; which, the model judges."""

    def __init__(self, made: Drafter, entry: Entry) -> None:
        self._made = made
        self._entry = entry

    def __call__(self, tokens: Sequence[int], /) -> list[int]:
        return self._checked(self._made(list(tokens)))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._made, name)
        if name == "batch":
            return lambda sequences: self._batch(value, sequences)
        return value

    def _batch(
        self, batch: Callable[[Any], Any], sequences: Sequence[Sequence[int]]
    ) -> list[list[int]]:
        drafts = batch([list(tokens) for tokens in sequences])
        if not isinstance(drafts, Sequence) or len(drafts) != len(sequences):
            raise self._fault(drafts, f"a list of ids for each of {len(sequences)} sequences")
        return [self._checked(draft) for draft in drafts]

    def _checked(self, draft: Any) -> list[int]:
        try:
            return [index(token) for token in draft]  # of numpy's and torch's ints too
        except TypeError:
            raise self._fault(draft, "a list of ids, which are ints, or an empty one") from None

    def _fault(self, draft: object, expected: str) -> PluginError:
        return PluginError(
            f"the {self._entry} of the {self._entry.source} proposed {draft!r:.60}; "
            f"expected {expected}: tell its author"
        )
