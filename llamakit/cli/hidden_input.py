"""Asks on the terminal for something secret that is pasted, and shows none of it.

``getpass`` reads one line: what a mail client wrapped would be cut there, and a terminal's driver
keeps 4095 characters of a line (1024 on macOS). Here the driver hands over what arrives, a paste is
taken whole where the terminal marks it, and elsewhere a line ends the answer only if nothing more
is on its way.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import termios
from collections.abc import Callable, Iterator

_PASTE_BEGINS, _PASTE_ENDS = b"\x1b[200~", b"\x1b[201~"
_MARK_PASTES, _MARK_NO_PASTES = "\x1b[?2004h", "\x1b[?2004l"
_KEYS = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O.|.)?")
_END = b"\x04"  # Ctrl-D
_QUIET_SECONDS = 0.3
"""So long after a line end nothing more came: the person has pressed Enter."""


def ask_hidden(question: str, wants: Callable[[str], str | None], most: int) -> str:
    """Ask on the terminal, and show nothing of what is typed or pasted.

    Args:
        wants: says what is missing in what has been typed so far; None: it may end here. Another
            Enter ends it all the same.
        most: how many bytes are read at most, about.

    Raises:
        EOFError: Ctrl-D, or a terminal that went away, before anything was typed.
    """
    descriptor = sys.stdin.fileno()
    with _unseen(descriptor):
        while True:
            _show(f"{question}: ")
            if answer := _answer(descriptor, wants, most):
                return answer
            _show("\n")


def _answer(descriptor: int, wants: Callable[[str], str | None], most: int) -> str:
    """Read until Enter says that all is there; nothing, if nothing else was typed."""
    data = b""
    since = 0
    while len(data) <= most:
        more = os.read(descriptor, 4096)
        data += more
        if not more or _END in more:
            if not _typed(data).strip():
                raise EOFError
            break
        is_paste = data.rfind(_PASTE_BEGINS) > data.rfind(_PASTE_ENDS)
        if is_paste or not more.endswith(b"\n") or _more_is_coming(descriptor):
            continue
        missing = wants(_typed(data)) if _typed(data[since:]).strip() else None
        if missing is None:
            break
        _show(f"\n{missing}: ")
        since = len(data)
    while len(data) > most and _more_is_coming(descriptor) and os.read(descriptor, 1 << 16):
        pass  # what comes after the answer would be shown
    return _typed(data).strip()


def _typed(data: bytes) -> str:
    """Return what is left of the keys: without arrows, and what Backspace and Ctrl-U took back."""
    text = _KEYS.sub("", data.decode("utf-8", "replace")).replace("\x08", "\x7f")
    lines = [line.rpartition("\x15")[2] for line in text.replace("\x04", "").split("\n")]
    return "\n".join(map(_without_erased, lines))


def _without_erased(line: str) -> str:
    kept: list[str] = []
    for letter in line:
        if letter != "\x7f":
            kept.append(letter)
        elif kept:
            kept.pop()
    return "".join(kept)


def _more_is_coming(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], _QUIET_SECONDS)[0])


@contextlib.contextmanager
def _unseen(descriptor: int) -> Iterator[None]:
    """Let a terminal hand over each key and show none; what is left unread is thrown away."""
    before = termios.tcgetattr(descriptor)
    during = termios.tcgetattr(descriptor)
    during[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
    during[6][termios.VMIN], during[6][termios.VTIME] = 1, 0
    marks = os.environ.get("TERM", "dumb") != "dumb"
    try:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, during)
        _show(_MARK_PASTES if marks else "")
        yield
    finally:
        _show((_MARK_NO_PASTES if marks else "") + "\n")
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


def _show(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
