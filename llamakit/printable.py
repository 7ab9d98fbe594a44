"""Text of others, such as names from files and replies of servers, made fit for a terminal.

A terminal obeys what it is sent: an escape sequence moves the cursor or sets the title, a line end
forges a line of ours, a bidirectional override shows a name backwards.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

MAX_LENGTH = 160
"""Characters of foreign text that a message repeats: the longest name of Meta's has 40."""
MOST_LISTED = 8
"""Foreign names that a message repeats."""


def printable(text: object, max_length: int = MAX_LENGTH) -> str:
    r"""Return foreign text on one line, without control characters, shortened if it is long.

    Args:
        text: what a file, a server or a plugin says; its ``str`` is taken.
        max_length: in characters; the rest becomes ``…``.
    Returns:
        What is not printable (control characters, line ends, bidirectional marks, surrogates) is
        escaped as Python does it, such as ``\x1b``.
    """
    string = str(text)
    shown = string if len(string) <= max_length else f"{string[:max_length]}…"
    return shown if shown.isprintable() else "".join(map(_escaped, shown))


def quoted(text: object) -> str:
    """Return foreign text as one argument of a command that a reader may copy into a shell."""
    return shlex.quote(printable(text))


def listed(names: Sequence[str], most: int = MOST_LISTED, max_length: int = MAX_LENGTH) -> str:
    """Return foreign names as a list on one line, such as ``a, b and 3 more``.

    Args:
        most: how many are named.
        max_length: of each name, in characters.
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(printable(name, max_length) for name in names[:most]) + more


def printable_lines(text: str) -> str:
    """Return text with everything but its line ends printable; nothing is left out."""
    return "\n".join(printable(line, len(line)) for line in text.split("\n"))


def printable_json(text: str) -> str:
    r"""Return JSON in which every character that is not printable is written as ``\uXXXX``.

    Only strings hold such characters, line ends aside, and there the escape means the same.
    """
    return re.sub(r"[^\n -~]", _json_escaped, text)


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def _json_escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
