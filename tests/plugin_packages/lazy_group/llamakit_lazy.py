"""A group that imports its commands when they are asked for, and cannot."""

from importlib import import_module

import click

from llamakit import hookimpl


class LazyGroup(click.Group):
    """What Click's documentation shows for commands that are slow to import."""

    def list_commands(self, _):
        return ["solve"]

    def get_command(self, _, name):
        return import_module(f"no_such_{name}r").command


@hookimpl
def register_commands(commands):
    commands.register("lazy", LazyGroup(help="Solve things."))
