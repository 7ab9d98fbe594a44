"""The loop of a chat: read a line, run it as a command or answer it, until the user ends it."""

from __future__ import annotations

from llamakit.cli.chat import slash_commands
from llamakit.cli.chat.chat import Chat
from llamakit.cli.chat.line_reader import open_line_reader, say
from llamakit.errors import LlamakitError
from llamakit.llama.drafter_choice import drafts_summary
from llamakit.llama.prompts import check_unicode


def run(chat: Chat) -> None:
    """Talk until the user ends the chat."""
    _read_lines(chat)
    if chat.drafter is not None:
        say(drafts_summary(chat.drafted, chat.accepted))


def _read_lines(chat: Chat) -> None:
    reader = open_line_reader([f"/{name}" for name in slash_commands.COMMANDS])
    while True:
        try:
            line = reader.read()
        except KeyboardInterrupt:
            say("Ctrl-D or /quit ends the chat")
            continue
        except EOFError:
            return
        try:
            handle(chat, line)
        except EOFError:
            return
        except (LlamakitError, OSError) as error:
            say(str(error))


def handle(chat: Chat, line: str) -> None:
    """Run a slash command, or answer a message.

    Raises:
        LlamakitError: it failed; the conversation is as it was before.
        EOFError: the user has ended the chat.
    """
    check_unicode(line, "the line")
    if line.startswith("/"):
        slash_commands.run(chat, line)
    elif line.strip():
        chat.conversation.ask(line)
        chat.reply()
