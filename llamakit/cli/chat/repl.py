"""The loop of a chat: read a line, run it as a command or answer it, until the user ends it."""

from __future__ import annotations

from llamakit.cli.chat import rescue, slash_commands
from llamakit.cli.chat.chat import Chat
from llamakit.cli.chat.line_reader import LineReader, say
from llamakit.cli.error_message import message_of
from llamakit.cli.terminal import note
from llamakit.errors import LlamakitError, UsageError
from llamakit.llama.drafter_choice import drafts_summary
from llamakit.llama.prompt_checks import check_unicode


def run(chat: Chat, reader: LineReader) -> int:
    """Talk until the user ends the chat.

    Returns:
        The exit status: from a pipe, that of the first line that failed.
    Raises:
        UsageError: a pipe had no line.
        KeyboardInterrupt: Ctrl-C, where the lines are not typed on a terminal.
    """
    with rescue.on_a_sudden_end(chat, is_on=reader.keeps_history):
        status = _read_lines(chat, reader)
    if chat.drafter is not None:
        say(drafts_summary(chat.drafted, chat.accepted))
    return status


def _read_lines(chat: Chat, reader: LineReader) -> int:
    status = count = 0
    while True:
        line = None
        try:
            line = reader.read()
            count += bool(line.strip())
            handle(chat, line)
        except EOFError:
            break
        except KeyboardInterrupt:
            if not reader.is_terminal:
                raise
            say("Ctrl-D or /quit ends the chat" if line is None else "stopped")
        except BrokenPipeError:  # nobody reads the answers any more
            raise
        except Exception as error:
            if (message := message_of(error)) is None:
                raise
            if reader.is_terminal:
                say(message)
                continue
            note(f"error: line {count}: {message}")
            status = status or (error.exit_status if isinstance(error, LlamakitError) else 1)
    if not count and not reader.is_terminal:
        raise UsageError("standard input has no message; it has one a line")
    return status


def handle(chat: Chat, line: str) -> None:
    """Run a slash command, or answer a message.

    Raises:
        LlamakitError: it failed; the conversation has what it had before.
        EOFError: the user has ended the chat.
    """
    check_unicode(line, "the line")
    if line.startswith("/"):
        slash_commands.run(chat, line)
    elif line.strip():
        chat.ask(line)
