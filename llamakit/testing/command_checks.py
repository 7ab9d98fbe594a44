"""The contract of commands, those that work on checkpoints among them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from click.testing import CliRunner, Result

from llamakit.errors import LlamakitError
from llamakit.testing.exporter_checks import contents
from llamakit.testing.factory_checks import said
from llamakit.testing.process_state import ContractError
from llamakit.testing.registration_checks import check_registration_of


def check_command(command: click.Command, *arguments: str | os.PathLike[str]) -> None:
    """Check that a command explains itself, and that it runs.

    Args:
        command: what the plugin registers.
        arguments: the words after its name, of a call that ends well.

    Raises:
        AssertionError: a rule is broken; the sentence says which, and what to do.
    """
    __tracebackhide__ = True
    if not isinstance(command, click.Command):
        raise ContractError(f"{command!r} is not a Click command: put @click.command() above it")
    check_registration_of(command.callback)
    for path, each in _with_subcommands(str(command.name), command):
        _check_help(path, each)
    result = _run(command, *arguments)
    if result.exit_code:
        said_why = result.output.strip() or (said(result.exception) if result.exception else "")
        raise ContractError(
            f"the command {command.name} {_typed(arguments)} ends with status "
            f"{result.exit_code}: {said_why}"
        )


def check_checkpoint_tool(tool: click.Command, *arguments: str | os.PathLike[str]) -> None:
    """Check a command that works on checkpoints: as ``check_command``, and what it does to files.

    Args:
        tool: what the plugin registers.
        arguments: the words after its name, of a call that ends well. Those that are folders are
            taken for the checkpoints that it reads.

    Raises:
        AssertionError: a rule is broken; the sentence says which, and what to do.
    """
    __tracebackhide__ = True
    sources = [Path(word) for word in arguments if Path(word).is_dir()]
    before = [contents(source) for source in sources]
    check_command(tool, *arguments)
    if [contents(source) for source in sources] != before:
        raise ContractError(
            f"the checkpoint tool {tool.name} changes a checkpoint that is there: "
            "write to another folder (llamakit.reshard and llamakit.export do)"
        )
    for source in sources:
        _check_refusal(tool, arguments, source)


def _check_refusal(
    tool: click.Command, arguments: tuple[str | os.PathLike[str], ...], source: Path
) -> None:
    """Check what happens when one of the checkpoints is a folder of something else."""
    __tracebackhide__ = True
    with TemporaryDirectory() as other:
        Path(other, "notes.txt").write_text("not a checkpoint", "utf-8")
        strings = [other if Path(word) == source else word for word in arguments]
        result = _run(tool, *strings)
    if not result.exit_code:
        raise ContractError(
            f"the checkpoint tool {tool.name} ends well on a folder that holds no "
            "checkpoint: open it with llamakit.open_checkpoint"
        )
    if not isinstance(result.exception, (LlamakitError, SystemExit)):
        assert result.exception is not None
        raise ContractError(
            f"the checkpoint tool {tool.name} fails on a folder that holds no checkpoint: "
            f"{said(result.exception)}; open it with llamakit.open_checkpoint, which says what is "
            "wrong"
        )


def _check_help(path: str, command: click.Command) -> None:
    __tracebackhide__ = True
    if not (command.help or "").strip():
        raise ContractError(f"the command {path} has no help: write a docstring")
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not (parameter.help or parameter.hidden):
            raise ContractError(
                f"the option {parameter.opts[0]} of {path} has no help: pass "
                'help="…" to click.option'
            )
    shown = _run(command, "--help")
    if shown.exit_code:
        assert shown.exception is not None
        raise ContractError(f"`{path} --help` fails: {said(shown.exception)}")
    refused = _run(command, "--no-such-option")
    if refused.exit_code != click.UsageError.exit_code:
        raise ContractError(
            f"{path} takes options that it does not have, so a misspelled one would "
            "pass: do not set ignore_unknown_options"
        )


def _with_subcommands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _with_subcommands(f"{path} {name}", inner)


def _run(command: click.Command, *arguments: str | os.PathLike[str]) -> Result:
    """Run a command as ``llamakit`` would, with the toolkit as its object."""
    from llamakit.plugin_manager.toolkit import default_toolkit

    strings = [os.fspath(word) for word in arguments]
    return CliRunner().invoke(command, strings, obj=default_toolkit(), prog_name=command.name)


def _typed(arguments: tuple[str | os.PathLike[str], ...]) -> str:
    return " ".join(os.fspath(word) for word in arguments)
