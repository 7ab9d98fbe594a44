"""Two commands: one that works and one that fails."""

import sys

import click

from llamakit import hookimpl


@click.command()
@click.option("--times", default=1, help="how often")
def greet(times):
    """Say hello.

    Politely.
    """
    click.echo("hello\n" * times, nl=False)


@click.command()
def explode():
    """Fail."""
    raise KeyError("fuse")


@click.command()
@click.argument("status")
def leave(status):
    """Exit."""
    sys.exit(int(status) if status.isdigit() else status)


@hookimpl
def register_commands(commands):
    commands.register("greet", greet)
    commands.register("explode", explode)
    commands.register("leave", leave)
