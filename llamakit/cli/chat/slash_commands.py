"""The commands of a chat, which begin with a slash."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from llamakit.cli.chat import session_file
from llamakit.cli.chat.chat import Chat
from llamakit.cli.chat.line_reader import say
from llamakit.errors import OptionError, UnknownNameError


def run(chat: Chat, line: str) -> None:
    """Carry out a line such as ``/set temperature 0``.

    Raises:
        UnknownNameError: no such command.
        OptionError: it wants other words.
        LlamakitError: it could not be done.
    """
    name, _, rest = line[1:].partition(" ")
    if name not in COMMANDS:
        raise UnknownNameError("chat command", f"/{name}", (f"/{known}" for known in COMMANDS))
    COMMANDS[name](chat, rest.strip())


def system(chat: Chat, text: str) -> None:
    """/system TEXT: what the model is to be; alone: show it; none: take it away."""
    if text:
        chat.conversation.system = None if text == "none" else text
    say(f"system: {chat.conversation.system or 'none'}")


def reset(chat: Chat, _rest: str) -> None:
    """/reset: forget all exchanges; the system message stays."""
    chat.conversation.reset()
    say("forgotten")


def undo(chat: Chat, _rest: str) -> None:
    """/undo: forget the last exchange."""
    say("the last exchange is forgotten" if chat.conversation.undo() else "nothing to undo")


def retry(chat: Chat, _rest: str) -> None:
    """/retry: write the last answer again."""
    if chat.conversation.take_back_answer():
        chat.reply()
    else:
        say("nothing to write again")


def save(chat: Chat, rest: str) -> None:
    """/save FILE: keep the conversation on disk."""
    path = _path(rest, "/save")
    session_file.save(chat.conversation, path)
    say(f"saved to {path}")


def load(chat: Chat, rest: str) -> None:
    """/load FILE: go on with a saved conversation."""
    path = _path(rest, "/load")
    chat.conversation = session_file.load(path)
    count = len(chat.conversation.messages) // 2
    say(f"{count} {'exchange' if count == 1 else 'exchanges'} loaded from {path}")


def set_(chat: Chat, rest: str) -> None:
    """/set NAME VALUE: how answers are written; alone: show it."""
    words = rest.split()
    if words:
        changed = chat.settings.changed(words[0], words[1:])
        chat.change(changed)
    for line in chat.settings.lines():
        if not words or line.startswith(words[0].replace("_", "-")):
            say(line)


def help_(_chat: Chat, _rest: str) -> None:
    """/help: this list."""
    for command in COMMANDS.values():
        say((command.__doc__ or "").rstrip("."))
    say("Ctrl-C stops an answer, Ctrl-D ends the chat")


def quit_(_chat: Chat, _rest: str) -> None:
    """/quit: end the chat."""
    raise EOFError


def _path(rest: str, command: str) -> Path:
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise OptionError(f"{command}: {error}") from error
    if len(words) != 1:
        raise OptionError(f"{command} wants one file name (in quotes if it has spaces)")
    return Path(words[0]).expanduser()


COMMANDS: dict[str, Callable[[Chat, str], None]] = {
    "system": system,
    "reset": reset,
    "undo": undo,
    "retry": retry,
    "save": save,
    "load": load,
    "set": set_,
    "help": help_,
    "quit": quit_,
}
