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

    is_terminal: bool
    keeps_history: bool
    """Whether it may write what is typed to a file."""

    def read(self) -> str:
        """Return the next line.

        Raises:
            EOFError: there is none.
            KeyboardInterrupt: Ctrl-C.
        """
        ...


class PipeReader:
    """Reads lines from a file or another program: no prompt, no history."""

    is_terminal = keeps_history = False

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
        keeps_history: read the lines of earlier chats, and write those of this one.
    """

    is_terminal = True

    def __init__(self, completions: Sequence[str], *, keeps_history: bool) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter

        from llamakit.cli.chat.line_history import FILE, PrivateHistory, state_folder

        self.keeps_history = keeps_history
        self._history = PrivateHistory(state_folder() / FILE) if keeps_history else None
        self._session: PromptSession[str] = PromptSession(
            history=self._history,
            completer=WordCompleter(list(completions), sentence=True),
            complete_while_typing=False,
        )
        self._tell_problem()

    def read(self) -> str:
        """Return the next line; EOFError at Ctrl-D, KeyboardInterrupt at Ctrl-C."""
        line = self._session.prompt(PROMPT)
        self._tell_problem()
        return line

    def _tell_problem(self) -> None:
        if self._history and (problem := self._history.take_problem()):
            say(problem)


def open_line_reader(completions: Sequence[str], *, keeps_history: bool = True) -> LineReader:
    """Return a line editor on a terminal (TTY), else a pipe reader."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return LineEditor(completions, keeps_history=keeps_history)
    return PipeReader()


def say(text: str) -> None:
    """Print a note about the conversation on standard error."""
    click.secho(printable_lines(text[:LONGEST_MESSAGE]), err=True, dim=True)


def write(text: str) -> None:
    """Print a piece of an answer immediately."""
    click.echo(text, nl=False)
