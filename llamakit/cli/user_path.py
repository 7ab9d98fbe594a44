"""Paths as users write them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class UserPath(click.Path):
    """Expands a ``~`` that no shell has: in a variable, in quotes, or after ``--option=``.

    Of a file, an empty name is refused: to ``Path`` it is the current folder.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Put the home folder in the place of ``~``, unless there is a file of that name."""
        text = os.fspath(value)
        if not text and not self.dir_okay:
            self.fail("the name is empty: pass that of a file. Is its variable set?", param, ctx)
        if isinstance(text, str) and text.startswith("~") and not Path(text).exists():
            value = os.path.expanduser(text)  # noqa: PTH111 - leaves a user that is unknown
        return super().convert(value, param, ctx)


def jsonl_option(
    name: str,
    help: str,  # noqa: A002 (as Click calls it)
    *,
    required: bool = False,
) -> Callable[[F], F]:
    """Return an option for a file of JSON Lines; ``-`` is standard input or output."""
    kind = UserPath(dir_okay=False, allow_dash=True)
    return click.option(name, type=kind, metavar="FILE.jsonl", help=help, required=required)
