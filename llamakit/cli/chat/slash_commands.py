"""The commands of a chat, which begin with a slash."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from llamakit.cli.chat import session_file
from llamakit.cli.chat.chat import Chat
from llamakit.cli.chat.line_reader import say
from llamakit.errors import OptionError, UnknownNameError
from llamakit.files.home_folder import expand_home


def run(chat: Chat, line: str) -> None:
    """Run a line such as ``/set temperature 0``.

    Raises:
        UnknownNameError: no such command.
        OptionError: wrong arguments.
        LlamakitError: the command failed.
    """
    name, _, rest = line[1:].partition(" ")
    if name not in COMMANDS:
        raise UnknownNameError("chat command", f"/{name}", (f"/{known}" for known in COMMANDS))
    COMMANDS[name](chat, rest.strip())


def system(chat: Chat, text: str) -> None:
    """/system TEXT: set the system message; alone: show it; none: remove it."""
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
    if not chat.retry():
        say("nothing to write again")


def save(chat: Chat, rest: str) -> None:
    """/save FILE: save the conversation."""
    path = _path(rest, "/save")
    session_file.save(chat.conversation, path)
    chat.saved = chat.conversation.messages
    say(f"saved to {path}")


def load(chat: Chat, rest: str) -> None:
    """/load FILE: continue a saved conversation."""
    path = _path(rest, "/load")
    chat.conversation = session_file.load(path)
    chat.saved = chat.conversation.messages
    count = len(chat.conversation.messages) // 2
    say(f"{count} {'exchange' if count == 1 else 'exchanges'} loaded from {path}")


def set_(chat: Chat, rest: str) -> None:
    """/set NAME VALUE: change how answers are generated; alone: show all settings."""
    arguments = rest.split()
    if arguments:
        name, *values = arguments
        chat.change(chat.settings.changed(name, values))
    for line in chat.settings.lines():
        if not arguments or line.startswith(arguments[0].replace("_", "-")):
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
        names = shlex.split(rest)
    except ValueError as error:
        raise OptionError(f"{command}: {error}") from error
    if len(names) != 1:
        raise OptionError(f"{command} wants one file name (in quotes if it has spaces)")
    return expand_home(names[0])


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
