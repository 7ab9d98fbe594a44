"""Reads lines from a terminal, with editing and history, or from a pipe; prints answers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

import click

from llamakit.cli.terminal import LONGEST_MESSAGE
from llamakit.printable import printable_lines

PROMPT = "> "


class LineReader(Protocol):
    """Reads the user's lines."""

    def read(self) -> str:
        """Return the next line.

        Raises:
            EOFError: there is none.
            KeyboardInterrupt: Ctrl-C.
        """
        ...


class PipeReader:
    """Reads lines from a file or another program: no prompt, no history."""

    def read(self) -> str:
        """Return the next line; EOFError at the end."""
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")


class LineEditor:
    """A line editor with history and completion of the slash commands.

    Args:
        completions: what Tab completes.
    """

    def __init__(self, completions: Sequence[str]) -> None:
        from platformdirs import user_state_path
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory

        folder = user_state_path("llamakit", ensure_exists=True)
        self._session: PromptSession[str] = PromptSession(
            history=FileHistory(str(folder / "chat_history")),
            completer=WordCompleter(list(completions), sentence=True),
            complete_while_typing=False,
        )

    def read(self) -> str:
        """Return the next line; EOFError at Ctrl-D, KeyboardInterrupt at Ctrl-C."""
        return self._session.prompt(PROMPT)


def open_line_reader(completions: Sequence[str]) -> LineReader:
    """Return a line editor on a terminal (TTY), else a pipe reader."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return LineEditor(completions)
    return PipeReader()


def say(text: str) -> None:
    """Print a note about the conversation on standard error."""
    click.secho(printable_lines(text[:LONGEST_MESSAGE]), err=True, dim=True)


def write(text: str) -> None:
    """Print a piece of an answer immediately."""
    click.echo(text, nl=False)
