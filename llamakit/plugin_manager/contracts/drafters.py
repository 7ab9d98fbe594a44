"""The contract of drafters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import index
from typing import Any

from llamakit.plugin_manager.registry import Entry
from llamakit.protocols import Drafter


def draft_fault(draft: Any, vocab_size: int | None = None) -> str:
    """Say what is wrong with the tokens that a drafter proposed, or nothing.

    Args:
        draft: should hold ints, of Python, numpy or torch.
        vocab_size: how many tokens there are; with None, the model decides what it can check.
    """
    try:
        tokens = token_list(draft)
    except TypeError:
        return (
            f"proposed {draft!r:.60}; expected a list of token IDs, which are ints, or an empty one"
        )
    for token in tokens:
        if vocab_size is not None and not 0 <= token < vocab_size:
            return f"proposed {token}; expected token IDs from 0 to {vocab_size - 1}"
    return ""


def token_list(draft: Any) -> list[int]:
    """Return drafted tokens as Python's ints.

    Raises:
        TypeError: they are no ints.
    """
    return [index(token) for token in draft]


def checked_drafter(drafter: Drafter, entry: Entry) -> Drafter:
    """Wrap a third-party drafter in checks of what it proposes."""
    return _CheckedDrafter(drafter, entry)


class _CheckedDrafter:
    """A third-party drafter that may propose ints only."""

    def __init__(self, drafter: Drafter, entry: Entry) -> None:
        self._drafter = drafter
        self._entry = entry

    def __call__(self, tokens: Sequence[int], /) -> list[int]:
        return self._checked(self._drafter(list(tokens)))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._drafter, name)
        if name == "batch":
            return lambda sequences: self._batch(value, sequences)
        return value

    def _batch(
        self, batch: Callable[[Any], Any], sequences: Sequence[Sequence[int]]
    ) -> list[list[int]]:
        drafts = batch([list(tokens) for tokens in sequences])
        if not isinstance(drafts, Sequence) or len(drafts) != len(sequences):
            raise self._entry.breach(
                f"proposed {drafts!r:.60}; expected a list of token IDs for each of "
                f"{len(sequences)} sequences"
            )
        return [self._checked(draft) for draft in drafts]

    def _checked(self, draft: Any) -> list[int]:
        if fault := draft_fault(draft):
            raise self._entry.breach(fault)
        return token_list(draft)
