"""Registers a function where a Click command is expected."""

from llamakit import hookimpl


@hookimpl
def register_commands(commands):
    commands.register("later", lambda: None)
