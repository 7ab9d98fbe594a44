"""Registers commands by their place: each is imported when it is run."""

from llamakit import hookimpl


@hookimpl
def register_commands(commands):
    commands.register("placed", "llamakit_placed.command:placed", help="Say where it is.")
    commands.register("misplaced", "llamakit_placed.command:absent", help="Is not there.")


@hookimpl
def register_checkpoint_tools(tools):
    tools.register("placed-tool", "llamakit_placed.command:group.tool", help="Do nothing.")
