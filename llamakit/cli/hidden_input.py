"""Reads a pasted secret from the terminal without echo.

``getpass`` reads one line: a link that a mail client has wrapped would be truncated there, and the
terminal driver keeps 4095 characters of a line (1024 on macOS). Here the driver passes every
character on. Where the terminal marks pastes (bracketed paste), a paste is read to its end;
elsewhere a line end finishes the answer if no more input follows.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import termios
from collections.abc import Callable, Iterator

_PASTE_START, _PASTE_END = b"\x1b[200~", b"\x1b[201~"
_PASTE_MODE_ON, _PASTE_MODE_OFF = "\x1b[?2004h", "\x1b[?2004l"
_KEYS = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O.|.)?")
_END = b"\x04"  # Ctrl-D
_QUIET_SECONDS = 0.3
"""If nothing follows a line end for so long, the user has pressed Enter."""


def ask_hidden(question: str, missing_part: Callable[[str], str | None], max_nbytes: int) -> str:
    """Ask on the terminal without echo.

    Args:
        missing_part: returns a prompt for what is missing in the input so far, or None if the
            input is complete. An empty line ends the input in any case.
        max_nbytes: about how many bytes are read at most.

    Raises:
        EOFError: Ctrl-D, or the terminal was closed, before anything was typed.
    """
    descriptor = sys.stdin.fileno()
    with _no_echo(descriptor):
        while True:
            _write(f"{question}: ")
            if answer := _read_answer(descriptor, missing_part, max_nbytes):
                return answer
            _write("\n")


def _read_answer(
    descriptor: int, missing_part: Callable[[str], str | None], max_nbytes: int
) -> str:
    """Read until the input is complete; return an empty string for Enter alone."""
    data = b""
    since = 0
    while len(data) <= max_nbytes:
        more = os.read(descriptor, 4096)
        data += more
        if not more or _END in more:
            if not _typed(data).strip():
                raise EOFError
            break
        is_paste = data.rfind(_PASTE_START) > data.rfind(_PASTE_END)
        if is_paste or not more.endswith(b"\n") or _has_more_input(descriptor):
            continue
        missing = missing_part(_typed(data)) if _typed(data[since:]).strip() else None
        if missing is None:
            break
        _write(f"\n{missing}: ")
        since = len(data)
    while len(data) > max_nbytes and _has_more_input(descriptor) and os.read(descriptor, 1 << 16):
        pass  # unread input would be echoed
    return _typed(data).strip()


def _typed(data: bytes) -> str:
    """Return the typed text: escape sequences removed, Backspace and Ctrl-U applied."""
    text = _KEYS.sub("", data.decode("utf-8", "replace")).replace("\x08", "\x7f")
    lines = [line.rpartition("\x15")[2] for line in text.replace("\x04", "").split("\n")]
    return "\n".join(map(_apply_backspaces, lines))


def _apply_backspaces(line: str) -> str:
    letters: list[str] = []
    for letter in line:
        if letter != "\x7f":
            letters.append(letter)
        elif letters:
            letters.pop()
    return "".join(letters)


def _has_more_input(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], _QUIET_SECONDS)[0])


@contextlib.contextmanager
def _no_echo(descriptor: int) -> Iterator[None]:
    """Switch a terminal to unbuffered input without echo; unread input is discarded at the end."""
    before = termios.tcgetattr(descriptor)
    during = termios.tcgetattr(descriptor)
    during[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
    during[6][termios.VMIN], during[6][termios.VTIME] = 1, 0
    has_paste_mode = os.environ.get("TERM", "dumb") != "dumb"
    try:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, during)
        _write(_PASTE_MODE_ON if has_paste_mode else "")
        yield
    finally:
        _write((_PASTE_MODE_OFF if has_paste_mode else "") + "\n")
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
