"""Keys and values of prompts that lost their slot, in pages that prompts with one prefix share.

A page holds ``PAGE`` tokens of one prefix. It is known by the page before it and by its tokens, so
what many conversations begin with is stored once. Pages are never written to again: a prompt gets
a copy in its slot, since PyTorch's attention reads adjacent positions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from llamakit.runtime.executor import Executor

PAGE = 64
"""Tokens of a page."""

_Key = tuple[int, tuple[int, ...]]
"""The number of the page before, 0 for none, and the page's tokens."""


class PrefixStore:
    """Pages on every rank; those used least recently are dropped first.

    Args:
        cache: the number of an open cache, whose slots are copied from and to.
        nbytes: how much memory all pages take at most, over all ranks.
    """

    def __init__(self, executor: Executor, cache: int, nbytes: int) -> None:
        self._executor, self._cache = executor, cache
        page_nbytes = PAGE * executor.position_nbytes(cache) * executor.group.size
        self._most = nbytes // page_nbytes
        self._keys: OrderedDict[int, _Key] = OrderedDict()  # the least recently used page first
        self._numbers: dict[_Key, int] = {}

    def shared(self, tokens: Sequence[int]) -> int:
        """Return how many of the first tokens of a prompt are stored."""
        return PAGE * len(list(self._stored(tokens)))

    def save(self, locate: Callable[[int], int], tokens: Sequence[int]) -> None:
        """Store tokens in full pages; what is stored already is not copied again.

        Args:
            locate: returns the slot that the page from a position on is in.
        """
        tokens = tokens[: self._most * PAGE]
        path = list(self._stored(tokens))
        self._touch(path)
        self._make_room(len(tokens) // PAGE - len(path))
        for start in range(PAGE * len(path), len(tokens) - PAGE + 1, PAGE):
            key = (path[-1] if path else 0, tuple(tokens[start : start + PAGE]))
            number = self._executor.save_page(self._cache, locate(start), start, start + PAGE)
            self._keys[number], self._numbers[key] = key, number
            path.append(number)
        self._touch(path)

    def load(self, slot: int, tokens: Sequence[int]) -> int:
        """Copy the stored prefix of a prompt into a slot; return its length in tokens."""
        path = list(self._stored(tokens))
        for index, number in enumerate(path):
            self._executor.load_page(self._cache, slot, PAGE * index, number)
        self._touch(path)
        return PAGE * len(path)

    def close(self) -> None:
        """Free all pages."""
        for number in list(self._keys):
            self._drop(number)

    def _stored(self, tokens: Sequence[int]) -> Iterator[int]:
        """Yield the pages of a prompt's longest stored prefix, in order."""
        number = 0
        for start in range(0, len(tokens) - PAGE + 1, PAGE):
            found = self._numbers.get((number, tuple(tokens[start : start + PAGE])))
            if found is None:
                return
            number = found
            yield number

    def _touch(self, path: Sequence[int]) -> None:
        """Note the use of pages, the first last: no page is dropped before those that follow it."""
        for number in reversed(path):
            self._keys.move_to_end(number)

    def _make_room(self, pages: int) -> None:
        """Drop pages until so many more fit: memory is never beyond its limit, not for a moment."""
        while self._keys and len(self._keys) + pages > self._most:
            self._drop(next(iter(self._keys)))

    def _drop(self, number: int) -> None:
        del self._numbers[self._keys.pop(number)]
        self._executor.drop_page(number)
