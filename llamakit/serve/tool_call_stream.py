"""Finds tool calls in an answer while it is written, so that their arguments can be streamed.

A call in JSON is recognized by its beginning, ``{"name": "f", "parameters": {``, and its arguments
are passed on as they come. Other ways to write a call are known only when the answer has ended.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from llamakit.serve.chat_prompt import AnswerTools

_HEAD = re.compile(
    r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?(?:"function"\s*:\s*\{\s*)?'
    r'"name"\s*:\s*"([\w.\-]+)"\s*,\s*"(?:parameters|arguments)"\s*:\s*(?=\{)'
)
_FIRST_KEY = re.compile(r'\{\s*"([^"\\]*)"')
_KEYS = ("type", "function", "name", "parameters", "arguments", "id")
_BEFORE = re.compile(r"\s*(?:\[\s*(?=\{))?")
_BETWEEN = re.compile(r"[\s;,}\]]*")
_MAYBE_LIST = re.compile(r"\[\s*(?:[^\W\d][\w.\-]*(?:\(.*)?)?", re.DOTALL)
_CALL_TAGS = ("<function=", "<tool_call>")
LONGEST_BEGINNING = 4096
"""Characters of an answer that are looked at again and again for the beginning of a call."""
_BUILTIN = re.compile(r"^[ \t]*\w+\.call\(", re.MULTILINE)
_MAYBE_BUILTIN = re.compile(r"^[ \t]*\w*(?:\.(?:c(?:a(?:ll?)?)?)?)?\Z", re.MULTILINE)


@dataclass(frozen=True)
class Piece:
    """A part of an answer.

    Args:
        kind: what ``text`` is: the answer's own, or the name or (a part of) the arguments of a
            call, as JSON.
        index: of the call.
    """

    kind: Literal["text", "name", "arguments"]
    text: str
    index: int = 0


class _Mode(Enum):
    START = auto()  # nothing shows yet what the answer is
    TEXT = auto()
    HELD = auto()  # maybe a call that is known only at the end
    ARGUMENTS = auto()
    AFTER = auto()  # behind a call: another one may follow
    DONE = auto()  # what follows does not count


class ToolCallStream:
    """Separates calls from text, piece by piece."""

    def __init__(self, tools: AnswerTools) -> None:
        self.calls = 0
        self._tools = tools
        self._mode = _Mode.START
        self._text = ""
        self._at = 0  # what is before it is returned already
        self._released = ""
        self._tokens: list[int] = []
        self._is_tagged = False
        self._nesting = _Nesting()

    def feed(self, text: str, token: int | None) -> list[Piece]:
        """Take the next text of the answer and its token; return what is certain now."""
        self._text += text
        if token is not None:
            self._tokens.append(token)
            if token == self._tools.call_token and self._mode in (_Mode.START, _Mode.TEXT):
                self._mode, self._is_tagged = _Mode.START, True
        return list(self._pieces())

    def end(self, finish: str | None) -> list[Piece]:
        """Return the rest of an answer that has ended, and of one that was cut off its text."""
        rest, self._text = self._text[self._at :], self._text[: self._at]
        if self._mode is _Mode.AFTER:
            rest = rest[_match(_BETWEEN, rest).end() :]
        elif self._mode in (_Mode.ARGUMENTS, _Mode.DONE):
            return []
        elif finish == "stop" and (pieces := self._parsed()):
            return pieces
        return [Piece("text", rest)] if rest else []

    def finish_reason(self, finish: str | None) -> str | None:
        """Return why an answer has ended, as OpenAI says it."""
        if finish != "stop" or not self.calls:
            return finish
        return "function_call" if self._tools.legacy else "tool_calls"

    def _pieces(self) -> Iterator[Piece]:
        """Yield pieces until nothing more is certain."""
        before = None
        while before != (self._mode, self._at):
            before = (self._mode, self._at)
            if self._mode is _Mode.START:
                yield from self._start()
            elif self._mode is _Mode.TEXT:
                yield from self._release(self._certain())
            elif self._mode is _Mode.ARGUMENTS:
                yield from self._arguments()
            elif self._mode is _Mode.AFTER:
                yield from self._after()

    def _start(self) -> Iterator[Piece]:
        rest = self._text[self._at :]
        body = rest[_match(_BEFORE, rest).end() :]
        if len(body) > LONGEST_BEGINNING:
            self._mode = _Mode.HELD
        if body.startswith("{"):
            if head := _HEAD.match(body):
                yield from self._begin(head[1], len(self._text) - len(body) + head.end())
            elif (key := _FIRST_KEY.match(body)) and key[1] not in _KEYS:
                self._no_call()
        elif body and not _MAYBE_LIST.fullmatch(body):
            self._no_call()

    def _no_call(self) -> None:
        self._mode = _Mode.HELD if self._is_tagged else _Mode.TEXT

    def _begin(self, name: str, at: int) -> Iterator[Piece]:
        self._at, self._mode, self._nesting = at, _Mode.ARGUMENTS, _Nesting()
        yield Piece("name", name, self.calls)
        self.calls += 1

    def _arguments(self) -> Iterator[Piece]:
        end = self._nesting.end(self._text, self._at)
        part, self._at = self._text[self._at : end], end
        if self._nesting.is_closed:
            self._mode = _Mode.DONE if self._tools.single else _Mode.AFTER
        if part:
            yield Piece("arguments", part, self.calls - 1)

    def _after(self) -> Iterator[Piece]:
        start = _match(_BETWEEN, self._text, self._at).end()
        if head := _HEAD.match(self._text, start):
            yield from self._begin(head[1], head.end())
        elif self._text[start : start + 1] not in ("", "{"):
            self._at, self._mode = start, _Mode.TEXT

    def _certain(self) -> int:
        """Return where the text ends that belongs to no call, whatever follows."""
        start = self._at
        places = [self._text.find(tag, start) for tag in _CALL_TAGS]
        if call := _BUILTIN.search(self._text, start):
            places.append(call.start())
        if found := [place for place in places if place >= 0]:
            self._mode = _Mode.HELD
            return min(found)
        if line := _MAYBE_BUILTIN.search(self._text, start):
            return line.start()
        for length in range(max(map(len, _CALL_TAGS)) - 1, 0, -1):
            if self._text.endswith(tuple(tag[:length] for tag in _CALL_TAGS)):
                return max(start, len(self._text) - length)
        return len(self._text)

    def _release(self, end: int) -> Iterator[Piece]:
        part, self._at = self._text[self._at : end], max(self._at, end)
        self._released += part
        if part:
            yield Piece("text", part)

    def _parsed(self) -> list[Piece]:
        """Return the calls of the whole answer, and its text where that is not returned yet."""
        answer = self._tools.read(self._tokens)
        if not answer.tool_calls:
            return []
        calls = answer.tool_calls[:1] if self._tools.single else answer.tool_calls
        pieces = [Piece("text", answer.content)] if answer.content and not self._released else []
        for call in calls:
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            pieces.append(Piece("name", call.name, self.calls))
            pieces.append(Piece("arguments", arguments, self.calls))
            self.calls += 1
        return pieces


class PlainStream:
    """An answer to a request without tools: all of it is text."""

    def feed(self, text: str, _token: int | None) -> list[Piece]:
        """Return the next text of the answer."""
        return [Piece("text", text)] if text else []

    def end(self, _finish: str | None) -> list[Piece]:
        """Return the rest: there is none."""
        return []

    def finish_reason(self, finish: str | None) -> str | None:
        """Return why an answer has ended."""
        return finish


def answer_pieces(tools: AnswerTools | None) -> ToolCallStream | PlainStream:
    """Return what separates an answer's calls from its text."""
    return PlainStream() if tools is None else ToolCallStream(tools)


def whole_calls(pieces: Sequence[Piece]) -> list[dict[str, str]]:
    """Return the name and the arguments of each call."""
    calls: list[dict[str, str]] = []
    for piece in pieces:
        if piece.kind == "name":
            calls.append({"name": piece.text, "arguments": ""})
        elif piece.kind == "arguments":
            calls[piece.index]["arguments"] += piece.text
    return calls


def call_id() -> str:
    """Return an ID for a new call."""
    return f"call_{secrets.token_hex(12)}"


class _Nesting:
    """Finds the end of a JSON object."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._is_escaped = self.is_closed = False

    def end(self, text: str, start: int) -> int:
        """Return where the object ends, or the text."""
        for place in range(start, len(text)):
            self._step(text[place])
            if self.is_closed:
                return place + 1
        return len(text)

    def _step(self, sign: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif self._in_string:
            self._is_escaped, self._in_string = sign == "\\", sign != '"'
        elif sign == '"':
            self._in_string = True
        elif sign in "{[":
            self._depth += 1
        elif sign in "}]":
            self._depth -= 1
            self.is_closed = self._depth == 0


def _match(pattern: re.Pattern[str], text: str, start: int = 0) -> re.Match[str]:
    match = pattern.match(text, start)
    assert match is not None
    return match
