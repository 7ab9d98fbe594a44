"""Takes the secret parts of a signed link out of what a server says.

Servers repeat addresses: whole, cut, percent-encoded, in pages, headers and redirects. So a string
is searched for any run of ``SHORTEST`` characters that a secret has too, however it is written.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping

SHORTEST = 8
"""Length of the shortest part of a secret that is found; a value that is shorter is no secret."""
MARK = "[secret]"

_QUERY = re.compile(r"(?<=[\w/*])(?:\?|%3F)[^\s\"'<>]+", re.IGNORECASE)
_ESCAPE = re.compile(
    r"%(?:25)*([0-9a-f]{2})"  # percent-encoded, also several times
    r"|\\u00([0-9a-f]{2})|\\x([0-9a-f]{2})"  # JSON, repr
    r"|&#x0*([0-9a-f]{2});|&#0*([0-9]{2,3});",  # HTML
    re.IGNORECASE,
)
_UNIT = re.compile(f"{_ESCAPE.pattern}|.", re.IGNORECASE | re.DOTALL)
_SAME = str.maketrans("-_~", "+=/")
"""CloudFront's base64 has characters of its own in place of these."""


class Redactor:
    """Finds what is secret, and puts ``[secret]`` in its place.

    Args:
        secrets: values as they are written in an address.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._parts: set[str] = set()
        for secret in secrets:
            text = "".join(unit for unit, _, _ in _units(secret))
            self._parts |= {text[at : at + SHORTEST] for at in range(len(text) - SHORTEST + 1)}

    def redacted(self, text: str) -> str:
        """Return a string without its secret parts, and without the query of any address."""
        text = _QUERY.sub(f"?{MARK}", text)
        kept, end = [], 0
        for start, stop in self._found(text):
            kept += [text[end:start], MARK]
            end = stop
        return "".join((*kept, text[end:]))

    def is_in(self, data: bytes) -> bool:
        """Tell whether a file has a long part of a secret in it, of ``2 * SHORTEST`` characters."""
        text = _ESCAPE.sub(_character, data.decode("latin-1"))
        plain = text.lower().translate(_SAME)
        places = range(0, len(plain), SHORTEST)  # a long part covers one of them as a whole
        return any(plain[at : at + SHORTEST] in self._parts for at in places)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return a response's headers; a value with a secret is replaced by a digest of it.

        The digest still distinguishes one ETag from another.
        """
        return {
            name: f"{MARK} {hashlib.sha256(value.encode()).hexdigest()[:32]}"
            if self._found(value)
            else value
            for name, value in headers.items()
        }

    def _found(self, text: str) -> list[tuple[int, int]]:
        """Return where secret parts are, in order; those that touch are one."""
        units = _units(text)
        plain = "".join(character for character, _, _ in units)
        ranges: list[tuple[int, int]] = []
        for at in range(len(plain) - SHORTEST + 1):
            if plain[at : at + SHORTEST] in self._parts:
                start, stop = units[at][1], units[at + SHORTEST - 1][2]
                if ranges and start <= ranges[-1][1]:
                    start = ranges.pop()[0]
                ranges.append((start, stop))
        return ranges


class RedactLogs(logging.Filter):
    """Takes what is secret out of log records."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the secrets in the record's message."""
        record.msg, record.args = self._redactor.redacted(record.getMessage()), ()
        return True


def _units(text: str) -> list[tuple[str, int, int]]:
    """Split a string into characters as they are meant, and where each of them is written."""
    return [(_character(unit), unit.start(), unit.end()) for unit in _UNIT.finditer(text)]


def _character(unit: re.Match[str]) -> str:
    """Return what a unit means, the same for all ways to write it: one character."""
    *hexadecimal, decimal = unit.groups()
    code = next((int(digits, 16) for digits in hexadecimal if digits), None)
    if decimal:
        code = int(decimal)
    character = unit[0] if code is None else chr(code)
    folded = character.lower().translate(_SAME)
    return folded if len(folded) == 1 else character
