"""Strings in which special tokens are written by their names, as other servers take them."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

from llamakit.protocols import Tokenizer


class SpecialText:
    """Encodes and decodes the names of special tokens too. Several threads may call it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a string; the name of a special token becomes that token."""
        tokens: list[int] = []
        for part in self._parts(text):
            tokens += [part] if isinstance(part, int) else self._tokenizer.encode(part)
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, with the names of those that are special."""
        return "".join(
            "".join(map(self.names.__getitem__, run)) if is_special else self._decode(run)
            for is_special, run in itertools.groupby(tokens, key=self.names.__contains__)
        )

    @functools.cached_property
    def names(self) -> Mapping[int, str]:
        """The names of the special tokens."""
        return {token: name for name, token in self._special.items()}

    def _decode(self, tokens: Iterator[int]) -> str:
        return self._tokenizer.decode(list(tokens))

    @functools.cached_property
    def _special(self) -> Mapping[str, int]:
        tokenizer = self._tokenizer
        known: Mapping[str, int] | None = getattr(tokenizer, "special_ids", lambda: None)()
        named = {"<s>": tokenizer.bos_id, "</s>": tokenizer.eos_id} if known is None else known
        return {name: token for name, token in named.items() if name.strip() and token >= 0}

    @functools.cached_property
    def _lengths(self) -> Sequence[int]:
        return sorted({len(name) for name in self._special}, reverse=True)

    @functools.cached_property
    def _starts(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(it) for it in {name[0] for name in self._special}))

    def _parts(self, text: str) -> Iterator[str | int]:
        """Split a string at the names of special tokens, of several the longest.

        By lookups: one regular expression of 256 names would keep Python's lock for seconds.
        """
        behind = 0
        for match in self._starts.finditer(text) if self._special else ():
            start = match.start()
            name = self._name_at(text, start) if start >= behind else None
            if name is not None:
                if start > behind:
                    yield text[behind:start]
                yield self._special[name]
                behind = start + len(name)
        if behind < len(text):
            yield text[behind:]

    def _name_at(self, text: str, start: int) -> str | None:
        candidates = (text[start : start + length] for length in self._lengths)
        return next((it for it in candidates if it in self._special), None)
