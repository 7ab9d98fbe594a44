"""The options that the commands that write a checkpoint share, and their SRC and DST."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from llamakit.cli.number_types import WholeNumber
from llamakit.cli.user_path import UserPath

F = TypeVar("F", bound=Callable[..., Any])

PLAN = click.option(
    "--plan", "only_plan", is_flag=True, help="Print what would be done, and do nothing."
)
VERIFY = click.option("--verify", is_flag=True, help="Check SRC against its checklist.chk too.")
FORCE = click.option("--force", is_flag=True, help="Replace DST if it exists.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def source_and_destination(command: F) -> F:
    """Add the arguments SRC and DST. The function gets ``source`` and ``destination``: paths."""
    path = UserPath(path_type=Path)
    command = click.argument("destination", metavar="DST", type=path)(command)
    return click.argument("source", metavar="SRC", type=path)(command)


def shard_count_option(**settings: Any) -> Callable[[F], F]:
    """Return the option for the number of shards. The function gets ``size``.

    Args:
        settings: of ``click.option``: what holds without the option.
    """
    return click.option(
        "-n",
        "--model-parallel-size",
        "size",
        metavar="N",
        type=WholeNumber(min=1),
        **{"help": "How many shards to write.", **settings},
    )
