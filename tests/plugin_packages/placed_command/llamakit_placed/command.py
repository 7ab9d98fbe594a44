"""Imported when one of the commands is run."""

import sys
import types

import click

sys.stderr.write("imported\n")


@click.command()
def placed():
    """Say where it is."""
    click.echo("here")


@click.command()
def tool():
    """Do nothing."""
    click.echo("nothing")


group = types.SimpleNamespace(tool=tool)
