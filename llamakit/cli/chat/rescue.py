"""What becomes of a dialog when a chat ends suddenly: it is saved, and a message says where."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

from llamakit.cli.chat import session_file
from llamakit.cli.chat.chat import Chat
from llamakit.cli.chat.line_reader import say
from llamakit.errors import LlamakitError, for_commands

_SIGNALS = ("SIGTERM", "SIGHUP")


@contextlib.contextmanager
def on_a_sudden_end(chat: Chat, *, is_on: bool) -> Iterator[None]:
    """Save what is not saved when a signal or a failure of the program ends the chat.

    Args:
        is_on: whether anything of this chat may be written without being asked for.
    """
    if not is_on:
        yield
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, _end) for number in numbers}
    try:
        yield
    except BaseException:
        _save(chat)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _save(chat: Chat) -> None:
    """Save a dialog with exchanges that no file has, for the user's eyes only."""
    from llamakit.cli.chat.line_history import state_folder

    if chat.conversation.messages in ([], chat.saved):
        return
    path = state_folder() / f"chat-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        session_file.save(chat.conversation, path, mode=0o600)
    except (OSError, LlamakitError) as error:
        said = f"the dialog could not be saved: {for_commands(error)}"
    else:
        said = f"the dialog is saved: /load {path} continues it"
    with contextlib.suppress(OSError):  # the terminal may be gone
        say(said)
