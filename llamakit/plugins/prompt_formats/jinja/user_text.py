"""What came from messages, kept apart from what the template wrote.

A template joins its own tags and the strings of messages into one text, and afterwards ``<s>`` of
the one looks like ``<s>`` of the other. So the strings go in covered: each of their characters is a
private code point instead, one for one. Whatever the template does with them (cut, join, trim), a
covered character stays covered, and only what is in the clear was written by the template.
White space is not covered, so that trimming works.

``CoveredText`` answers a template's questions (``'</think>' in content``) as the plain text would.
That is for convenience: where it does not know how, the result is wrong, and still covered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, SupportsIndex

FIRST, LAST = 0xF0000, 0x10FFFD
"""Planes 15 and 16, which are private."""


def is_unicode(text: str) -> bool:
    """Return whether it has no lone surrogate, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Cover:
    """A private code point for each character.

    Args:
        special: white space that has to be covered too: it is part of a token's name.
        used: strings whose private code points are taken.
    """

    def __init__(self, special: Iterable[str], used: Iterable[str]) -> None:
        self._spaces = frozenset(special)
        characters: set[str] = set().union(*used)
        taken = {ord(character) for character in characters if ord(character) >= FIRST}
        self._free = (point for point in range(FIRST, LAST + 1) if point not in taken)
        self._there: dict[int, int] = {}
        self._back: dict[int, int] = {}

    def on(self, text: str) -> str:
        """Cover a string."""
        for character in set(text):
            point = ord(character)
            if point in self._there or point in self._back:
                continue
            if not character.isspace() or character in self._spaces:
                self._there[point] = next(self._free)
                self._back[self._there[point]] = point
        return text.translate(self._there)

    def off(self, text: str) -> str:
        """Take the cover off; the rest stays as it is."""
        return text.translate(self._back)


class CoveredText(str):
    """A covered text that compares, splits and changes case as the plain one would."""

    __slots__ = ("cover",)
    cover: Cover

    @classmethod
    def of(cls, text: str, cover: Cover) -> CoveredText:
        """Cover a string."""
        return cls._made(cover.on(text), cover)

    @classmethod
    def _made(cls, covered: str, cover: Cover) -> CoveredText:
        text = cls(covered)
        text.cover = cover
        return text

    def __str__(self) -> str:
        return self

    def __hash__(self) -> int:
        return hash(self.cover.off(self))

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, _covered(self, other)) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: str) -> bool:
        return self.cover.off(self) < self.cover.off(other)

    def __gt__(self, other: str) -> bool:
        return self.cover.off(self) > self.cover.off(other)

    def __radd__(self, other: str) -> CoveredText:
        return self._made(other + str.__str__(self), self.cover)

    def replace(self, old: str, new: str, /, count: SupportsIndex = -1) -> CoveredText:
        """Replace as the plain text would; what comes in stays as it is."""
        return self._made(str.replace(self, _covered(self, old), new, count), self.cover)


def _covered(text: CoveredText, value: Any) -> Any:
    """Cover what a covered text is compared with or searched for."""
    if isinstance(value, tuple):
        return tuple(_covered(text, item) for item in value)
    is_plain = isinstance(value, str) and not isinstance(value, CoveredText)
    return text.cover.on(value) if is_plain else value


def _wrapped(text: CoveredText, value: Any) -> Any:
    """Make covered strings of what a method returned."""
    if isinstance(value, (list, tuple)):
        return type(value)(_wrapped(text, item) for item in value)
    is_plain = isinstance(value, str) and not isinstance(value, CoveredText)
    return CoveredText._made(value, text.cover) if is_plain else value


def _searching(name: str) -> Callable[..., Any]:
    """Return a method whose arguments are looked for in the text."""
    plain = getattr(str, name)

    def method(self: CoveredText, *args: Any, **kwargs: Any) -> Any:
        return _wrapped(self, plain(self, *(_covered(self, arg) for arg in args), **kwargs))

    return method


def _slicing(name: str) -> Callable[..., Any]:
    """Return a method that works on covered and plain characters alike."""
    plain = getattr(str, name)

    def method(self: CoveredText, *args: Any, **kwargs: Any) -> Any:
        return _wrapped(self, plain(self, *args, **kwargs))

    return method


def _uncovering(name: str) -> Callable[..., Any]:
    """Return a method that has to see the characters; what it makes is covered again."""
    plain = getattr(str, name)

    def method(self: CoveredText, *args: Any, **kwargs: Any) -> Any:
        text = plain(self.cover.off(self), *args, **kwargs)
        return CoveredText.of(text, self.cover) if isinstance(text, str) else text

    return method


SEARCHING = (
    *("__contains__", "startswith", "endswith", "find", "rfind", "index", "rindex", "count"),
    *("split", "rsplit", "partition", "rpartition", "strip", "lstrip", "rstrip"),
    *("removeprefix", "removesuffix"),
)
SLICING = ("__add__", "__getitem__", "__mul__", "__rmul__", "splitlines")
UNCOVERING = (
    *("upper", "lower", "title", "capitalize", "swapcase", "casefold"),
    *("isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower"),
    *("isnumeric", "isprintable", "istitle", "isupper"),
)
for _names, _make in ((SEARCHING, _searching), (SLICING, _slicing), (UNCOVERING, _uncovering)):
    for _name in _names:
        setattr(CoveredText, _name, _make(_name))
