"""Reads calls that a model writes as a Python list: ``[f(city="Paris"), g(n=1)]``.

Not with Python's parser: models leave quotes and line ends inside strings as they are, write JSON's
``true`` and ``null``, and Meta's code writes ``{key=value}`` for an object.
"""

from __future__ import annotations

import re
from typing import Any

from llamakit.protocols import ToolCall

_DEEPEST = 32
"""Lists and objects in one another."""
_NAME = re.compile(r"[^\W\d][\w.\-]*")
_KEY = re.compile(r"[^\W\d]\w*")
_NUMBER = re.compile(r"[+-]?\d{1,300}(\.\d{0,300})?([eE][+-]?\d{1,3})?")
_CONSTANTS = {"true": True, "false": False, "none": None, "null": None}
_SIGNS = {quote: re.compile(rf"\\.|{quote}", re.DOTALL) for quote in ("'", '"')}
_STRING_END = re.compile(
    r"""\s*(?:[)\]}:=]|$|,\s*(?:[)\]}'"\[{+\-\d]|[\w.\-]+\s*[=:(]|(?:true|false|none|null)\b))""",
    re.IGNORECASE,
)
"""What follows a quote that ends a string: one that anything else follows is part of it."""
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|[\\'\"nrt\n])")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\n": ""}


class _NoCallsError(Exception):
    """The text is something else."""


def read_python_list(text: str) -> list[ToolCall]:
    """Return the calls of one or several lists; none if the text is anything else."""
    reader = _Reader(text)
    calls: list[ToolCall] = []
    try:
        while not reader.is_at_end():
            calls += reader.calls()
    except (_NoCallsError, ValueError, OverflowError):
        return []
    return calls


class _Reader:
    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def is_at_end(self) -> bool:
        self._skip_space()
        return self._at == len(self._text)

    def calls(self) -> list[ToolCall]:
        """Read a list of calls that is not empty."""
        self._expect("[")
        calls = [self._call()]
        while not self._take("]"):
            self._expect(",")
            if self._take("]"):
                break
            calls.append(self._call())
        return calls

    def _call(self) -> ToolCall:
        name = self._match(_NAME)
        self._expect("(")
        return ToolCall(name, self._pairs(")", depth=0))

    def _pairs(self, end: str, depth: int) -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        while not self._take(end):
            if pairs:
                self._expect(",")
                if self._take(end):
                    break
            key = self._string() if self._peek() in ("'", '"') else self._match(_KEY)
            if key in pairs or not (self._take("=") or (end == "}" and self._take(":"))):
                raise _NoCallsError
            pairs[key] = self._value(depth)
        return pairs

    def _value(self, depth: int) -> Any:
        start = self._peek()
        if depth > _DEEPEST:
            raise _NoCallsError
        if start in ("'", '"'):
            return self._string()
        if start in ("[", "{"):
            self._at += 1
            return self._items(depth + 1) if start == "[" else self._pairs("}", depth + 1)
        if start.isdigit() or start in ("+", "-"):
            number = self._match(_NUMBER)
            return int(number) if number.lstrip("+-").isdecimal() else float(number)
        word = self._match(_KEY).lower()
        if word not in _CONSTANTS:
            raise _NoCallsError
        return _CONSTANTS[word]

    def _items(self, depth: int) -> list[Any]:
        items: list[Any] = []
        while not self._take("]"):
            if items:
                self._expect(",")
                if self._take("]"):
                    break
            items.append(self._value(depth))
        return items

    def _string(self) -> str:
        quote, start = self._text[self._at], self._at + 1
        for sign in _SIGNS[quote].finditer(self._text, start):
            if sign[0] == quote and _STRING_END.match(self._text, sign.end()):
                self._at = sign.end()
                return _ESCAPE.sub(_unescaped, self._text[start : sign.start()])
        raise _NoCallsError

    def _match(self, pattern: re.Pattern[str]) -> str:
        self._skip_space()
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _NoCallsError
        self._at = match.end()
        return match[0]

    def _peek(self) -> str:
        self._skip_space()
        return self._text[self._at : self._at + 1]

    def _take(self, sign: str) -> bool:
        is_there = self._peek() == sign
        self._at += is_there
        return is_there

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise _NoCallsError

    def _skip_space(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1


def _unescaped(match: re.Match[str]) -> str:
    sign = match[1]
    return chr(int(sign[1:], 16)) if len(sign) > 1 else _ESCAPED.get(sign, sign)
