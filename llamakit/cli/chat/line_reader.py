"""Where lines come from and answers go: a terminal with editing and history, or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

import click

PROMPT = "> "


class Terminal(Protocol):
    """Reads what the user types."""

    def read(self) -> str:
        """Return the next line.

        Raises:
            EOFError: there is none.
            KeyboardInterrupt: Ctrl-C.
        """
        ...


class Pipe:
    """Lines from a file or another program: no prompt, no history."""

    def read(self) -> str:
        """Return the next line; EOFError at the end."""
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")


class LineEditor:
    """A line editor with history and completion of the slash commands.

    Args:
        words: what is completed.
    """

    def __init__(self, words: Sequence[str]) -> None:
        from platformdirs import user_state_path
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory

        folder = user_state_path("llamakit", ensure_exists=True)
        self._session: PromptSession[str] = PromptSession(
            history=FileHistory(str(folder / "chat_history")),
            completer=WordCompleter(list(words), sentence=True),
            complete_while_typing=False,
        )

    def read(self) -> str:
        """Return the next line; EOFError at Ctrl-D, KeyboardInterrupt at Ctrl-C."""
        return self._session.prompt(PROMPT)


def open_terminal(words: Sequence[str]) -> Terminal:
    """Return a line editor on a terminal, else a pipe."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return LineEditor(words)
    return Pipe()


def say(text: str) -> None:
    """Say something about the conversation, apart from the answers."""
    click.secho(text, err=True, dim=True)


def write(text: str) -> None:
    """Write a piece of an answer at once."""
    click.echo(text, nl=False)
