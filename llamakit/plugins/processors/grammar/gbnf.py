"""llama.cpp's grammar notation GBNF, rewritten in Lark's notation with its meaning kept.

The engine reads text through a lexer that takes the longest match. GBNF has none: ``[a-z]+ "ing"``
accepts "walking". So every character becomes a terminal of its own, and only the parser, which
follows all alternatives, decides.

Source: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md and
``src/llama-grammar.cpp``.
"""

from __future__ import annotations

import re

MAX_DEPTH = 100
"""Brackets inside brackets."""

MAX_REPETITIONS = 2000
"""In ``{m,n}``, as in llama.cpp."""

ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]"}
HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
LAST_CHARACTER = 0x10FFFF
ANY = f"\\x{{0}}-\\x{{{LAST_CHARACTER:X}}}"


class GbnfError(ValueError):
    """A grammar is malformed."""


def is_gbnf(text: str) -> bool:
    """Return whether a grammar is in GBNF: a rule is defined by ``::=``."""
    return re.search(r"^[ \t]*[\w-]+[ \t]*::=", text, re.M) is not None


def lark_of_gbnf(text: str) -> str:
    """Return a grammar in Lark's notation that accepts what the GBNF grammar accepts.

    Raises:
        GbnfError: the grammar is malformed; the message has the line.
    """
    reader = _Reader(text)
    rules = reader.rules()
    if "root" not in rules:
        raise GbnfError("no rule is called root, where GBNF begins")
    for name, line in reader.referenced.items():
        if name not in rules:
            raise GbnfError(f"line {line}: there is no rule {name!r}")
    lines = [f"start: {reader.rule_name('root')}"]
    lines += [f"{reader.rule_name(name)}: {body}" for name, body in rules.items()]
    lines += [f"{name}: /[{members}]/" for members, name in reader.classes.items()]
    return "\n".join(lines)


class _Reader:
    """Reads a grammar from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self._text = text.removeprefix("\ufeff")
        self._position = 0
        self._depth = 0
        self._names: dict[str, str] = {}
        self.classes: dict[str, str] = {}
        """The terminal of each set of characters, by its members in a regular expression."""
        self.referenced: dict[str, int] = {}
        """The line on which a rule is first named by another."""

    def rules(self) -> dict[str, str]:
        """Return the rules' bodies in Lark's notation; the last one of a name counts."""
        rules = {}
        self._skip_space(lines=True)
        while self._position < len(self._text):
            name = self._match(r"[A-Za-z0-9_-]+")
            self._skip_space()
            if not name or not self._match("::="):
                raise self._error("expected a rule, such as: root ::= ")
            self._skip_space(lines=True)
            rules[name] = self._alternatives(nested=False)
            if self._position < len(self._text) and not self._match(r"\r\n|\r|\n"):
                raise self._error("expected the end of the rule")
            self._skip_space(lines=True)
        return rules

    def rule_name(self, name: str) -> str:
        """Return the name in Lark's notation, which knows neither capitals nor hyphens."""
        return self._names.setdefault(name, f"r{len(self._names)}")

    def _alternatives(self, nested: bool) -> str:
        sequences = [self._sequence(nested)]
        while self._match(r"\|"):
            self._skip_space(lines=True)
            sequences.append(self._sequence(nested))
        return " | ".join(sequences)

    def _sequence(self, nested: bool) -> str:
        items: list[str] = []
        while (item := self._item()) is not None:
            items.append(item)
            self._skip_space(lines=nested)
            while count := self._repetition(nested):
                items[-1] = (
                    '""' if items[-1] == '""' or count == "{0,0}" else f"({items[-1]}){count}"
                )
        return " ".join(items) or '""'

    def _item(self) -> str | None:
        """Return what one item matches, or None if there is none."""
        if self._match('"'):
            return self._literal()
        if self._match(r"\["):
            return self._class()
        if self._match(r"\."):
            return self._terminal(ANY)
        if self._match(r"\("):
            return self._group()
        if self._peek() in "*+?{" and self._peek():
            raise self._error("there is nothing to repeat")
        if self._match(r"!?<"):
            raise self._error("tokens such as <think> are not supported; write text in quotes")
        name = self._match(r"[A-Za-z0-9_-]+")
        if not name:
            return None
        self.referenced.setdefault(name, self._line())
        return self.rule_name(name)

    def _group(self) -> str:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} brackets inside one another")
        self._skip_space(lines=True)
        inner = self._alternatives(nested=True)
        if not self._match(r"\)"):
            raise self._error("expected )")
        self._depth -= 1
        return f"({inner})"

    def _literal(self) -> str:
        terminals = []
        while not self._match('"'):
            code = self._character()
            terminals.append(self._terminal(_members(code, code)))
        if not terminals:
            return '""'
        return terminals[0] if len(terminals) == 1 else f"({' '.join(terminals)})"

    def _class(self) -> str:
        sign = self._match(r"\^")
        members = ""
        while not self._match("]"):
            first = last = self._character()
            if self._match(r"-(?!\])"):
                last = self._character()
            if last < first:
                raise self._error(f"the range {chr(first)!r} to {chr(last)!r} is empty")
            members += _members(first, last)
        return self._terminal(sign + members) if members else '""'

    def _terminal(self, members: str) -> str:
        return self.classes.setdefault(members, f"C{len(self.classes)}")

    def _character(self) -> int:
        """Return the code point of the next character, which may be escaped."""
        if self._position >= len(self._text):
            raise self._error("a string or a class has no end")
        if not self._match(r"\\"):
            code = ord(self._text[self._position])
            self._position += 1
        elif kind := self._match("[xuU]"):
            digits = self._match(f"[0-9a-fA-F]{{{HEX_DIGITS[kind]}}}")
            if not digits:
                raise self._error(f"\\{kind} needs {HEX_DIGITS[kind]} hexadecimal digits")
            code = int(digits, 16)
        else:
            escaped = self._match(".")
            if escaped not in ESCAPES or not escaped:
                raise self._error(f"unknown escape \\{escaped}")
            code = ord(ESCAPES[escaped])
        if code > LAST_CHARACTER or 0xD800 <= code <= 0xDFFF:
            raise self._error(f"{code:#x} is no character")
        return code

    def _repetition(self, nested: bool) -> str:
        """Return the count that follows an item in Lark's notation; none is ""."""
        count = self._match(r"[*+?]")
        if not count and self._match("{"):
            self._skip_space(lines=nested)
            least = self._match(r"\d+")
            self._skip_space(lines=nested)
            comma = self._match(",")
            self._skip_space(lines=nested)
            most = self._match(r"\d+") if comma else least
            self._skip_space(lines=nested)
            if not least or not self._match("}"):
                raise self._error("expected a count such as {2}, {2,} or {2,3}")
            if any(int(bound[:9]) > MAX_REPETITIONS for bound in (least, most) if bound):
                raise self._error(f"more than {MAX_REPETITIONS} repetitions")
            if most and int(most) < int(least):
                raise self._error(f"the count {{{least},{most}}} cannot be met")
            count = f"{{{least},{most}}}"
        if count:
            self._skip_space(lines=nested)
        return count

    def _skip_space(self, lines: bool = False) -> None:
        """Skip blanks and comments, and line ends where the rule may continue after them."""
        self._match(r"(?:[ \t\r\n]|#[^\r\n]*)*" if lines else r"(?:[ \t]|#[^\r\n]*)*")

    def _match(self, pattern: str) -> str:
        """Consume what matches here and return it; nothing is ""."""
        match = re.compile(pattern, re.S).match(self._text, self._position)
        self._position = match.end() if match else self._position
        return match[0] if match else ""

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _line(self) -> int:
        return self._text.count("\n", 0, self._position) + 1

    def _error(self, message: str) -> GbnfError:
        return GbnfError(f"line {self._line()}: {message}")


def _members(first: int, last: int) -> str:
    """Return a range of characters inside a class of a regular expression."""
    return f"\\x{{{first:X}}}" if first == last else f"\\x{{{first:X}}}-\\x{{{last:X}}}"
