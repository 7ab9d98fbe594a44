"""The command line: a Click group built from a toolkit, and the handling of errors.

``main`` is the one place that turns an error into a message and an exit status: 0 success, 1 bad
data or failure, 2 usage error, 3 the download link has expired, 130 interrupted.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from llamakit._distribution import __version__
from llamakit.cli import standard_streams, team_command
from llamakit.cli.error_message import message_of
from llamakit.cli.lost_interrupts import repeat_lost_interrupts
from llamakit.cli.terminal import note
from llamakit.cores import wait_briefly
from llamakit.errors import INTERRUPTED_STATUS, LlamakitError, ParallelError, UnknownNameError
from llamakit.plugin_manager.failures import attributed
from llamakit.plugin_manager.plugin_loader import load_command
from llamakit.plugin_manager.registry import Entry
from llamakit.plugin_manager.toolkit import Toolkit, default_toolkit

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Under torchrun only rank 0 prints; the others work for it, or do their share of a conversion.

    Args:
        arguments: what follows ``llamakit``; those of this process if None.
    Returns:
        The exit status.
    """
    if arguments is None:
        repeat_lost_interrupts()
    standard_streams.prepare()
    wait_briefly()
    if os.environ.get("_LLAMAKIT_COMPLETE", "").endswith("_complete"):
        standard_streams.silence_errors()  # Tab was pressed: the command line is on the screen
    if not os.environ.get("WORLD_SIZE"):
        return run(arguments)

    from llamakit.runtime.rank_environment import read_environment

    try:
        ranks = read_environment()
    except ParallelError:  # whatever loads a model raises it again; the rest needs no ranks
        return run(arguments)
    if ranks.size == 1:
        return run(arguments)
    typed = sys.argv[1:] if arguments is None else list(arguments)
    if team_command.is_divided(typed):
        return team_command.run_together(ranks, lambda: _run(arguments), _status_of)
    if ranks.rank > 0:
        return _status_of(lambda: _follow(arguments))

    from llamakit.llama import worker

    status = run(arguments)
    dismissed = _status_of(worker.dismiss)
    return status or dismissed


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line in this process alone: see ``main``."""
    return _status_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int | None:
    cli = build_cli(default_toolkit())
    if arguments is None:  # the process is ours: what is loaded so far stays until its end,
        gc.freeze()  # and looking for garbage in it would be a tenth of `--help`
    typed = None if arguments is None else list(arguments)
    status: int | None = cli.main(typed, prog_name="llamakit", standalone_mode=False)
    sys.stdout.flush()
    return status


def _follow(arguments: Sequence[str] | None) -> int:
    """Be a rank other than 0."""
    from llamakit.cli.shared_options import join_timeout_of
    from llamakit.llama import worker

    return worker.main(join_timeout_of(sys.argv[1:] if arguments is None else arguments))


def _status_of(work: Callable[[], int | None]) -> int:
    """Do some work; print what stops it, and return the exit status."""
    try:
        status = work()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        return _interrupted(error)
    except Exception as error:  # noqa: BLE001 - a bug is raised again
        return _fail(error)
    return status or 0


def build_cli(toolkit: Toolkit) -> click.Group:
    """Build the ``llamakit`` command from what the plugins have registered."""
    cli = _Cli(
        "llamakit",
        toolkit,
        help="From Meta's Llama link to an answer.",
        epilog="`llamakit COMMAND -h` explains a command; `llamakit plugins` lists the plugins.",
        context_settings={
            "obj": toolkit,
            "help_option_names": ["-h", "--help"],
            "token_normalize_func": _hyphened,
            "terminal_width": _help_width(),
        },
    )
    return click.version_option(__version__, prog_name="llamakit")(cli)


class _Cli(click.Group):
    """The group of all commands, those of third-party plugins included."""

    def __init__(self, name: str, toolkit: Toolkit, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.toolkit = toolkit

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(entry.name for entry in self._entries())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = self._entry(cmd_name)
        return _named(entry) if entry else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not self._entry(name) and not self._entry(_hyphened(name)) and name[:1] != "-":
            self._refuse(name)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the commands' names, importing none of them, and the options."""
        from llamakit.cli.completion import commands

        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*commands(self._entries(), incomplete), *options]

    def invoke(self, ctx: click.Context) -> None:
        """Run the command; what a third-party one raises names its plugin."""
        standard_streams.keep_warnings_on_one_line()
        try:
            super().invoke(ctx)
        except (Exception, SystemExit) as error:
            entry = self._entry(ctx.invoked_subcommand or "")
            if entry is None or entry.source.builtin:
                raise
            if isinstance(error, SystemExit):
                raise click.exceptions.Exit(_third_party_status(entry, error)) from None
            with attributed(entry):
                raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        sections: dict[str, list[tuple[str, str]]] = {"Commands": [], "Checkpoint tools": []}
        for entry in self._entries():
            if not getattr(entry.value, "hidden", False):
                sections.setdefault(_section(entry), []).append((entry.name, entry.help))
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _entries(self) -> Iterator[Entry]:
        yield from self.toolkit.commands
        yield from self.toolkit.checkpoint_tools

    def _entry(self, name: str) -> Entry | None:
        return next((entry for entry in self._entries() if entry.name == name), None)

    def _refuse(self, name: str) -> NoReturn:
        """Raise the error for a command that does not exist, or that two plugins register."""
        try:
            self.toolkit.commands.entry(name)
        except UnknownNameError:
            known = (entry.name for entry in self._entries())
            raise UnknownNameError("command", name, known, off=self.toolkit.commands.off) from None
        raise AssertionError(name)


def _third_party_status(entry: Entry, exit_: SystemExit) -> int:
    """Return the exit status that a command chose by ``sys.exit``; say whose it is, if not 0."""
    code = exit_.code
    if code in (None, 0):
        return 0
    note(f"the {entry} of the {entry.source} called sys.exit({code!r})")
    return code if isinstance(code, int) else 1


def _section(entry: Entry) -> str:
    """Return the heading of ``--help`` for a command."""
    if not entry.source.builtin:
        return f"From {entry.source.package}"
    return "Checkpoint tools" if entry.kind == "checkpoint tool" else "Commands"


def _named(entry: Entry) -> click.Command:
    """Return the command under its registered name; a third-party one's help names its plugin."""
    import copy

    command = copy.copy(load_command(entry))
    command.name = entry.name
    if not entry.source.builtin:
        command.epilog = "\n\n".join(filter(None, (command.epilog, f"From the {entry.source}.")))
    return command


def _hyphened(token: str) -> str:
    """Make ``--max_seq_len`` mean ``--max-seq-len``.

    Click applies this to the names of options, commands and choices, on both sides of each
    comparison.
    """
    return token.replace("_", "-")


def _help_width() -> int:
    """Return the width of help; Click would import shutil (and so bz2, lzma …) to find it."""
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (OSError, ValueError):
        columns = 80
    return max(50, min(columns, 100) - 2)


def _interrupted(error: BaseException) -> int:
    """Return the exit status after Ctrl-C (130), or after the user has declined (1)."""
    if isinstance(error, KeyboardInterrupt):
        click.echo(err=True)
    elif not isinstance(error.__cause__, KeyboardInterrupt):
        note("aborted")
        return 1
    return INTERRUPTED_STATUS


def _fail(error: Exception) -> int:
    """Print the message of an error and return its exit status; raise it if it is a bug."""
    if isinstance(error, BrokenPipeError):
        return _close_broken_pipe()
    message = message_of(error)
    if message is None:
        raise error
    if os.environ.get("LLAMAKIT_DEBUG"):
        import traceback

        traceback.print_exception(error)
    note(f"error: {message}")
    return error.exit_status if isinstance(error, LlamakitError) else 1


def _close_broken_pipe() -> int:
    """End quietly when the reader of the output has closed it, as in ``llamakit … | head``."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    return 1
