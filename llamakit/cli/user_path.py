"""A path as users write it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


class UserPath(click.Path):
    """Expands a ``~`` that no shell has: in a variable, in quotes, or after ``--option=``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Put the home folder in the place of ``~``, unless there is a file of that name."""
        text = os.fspath(value)
        if isinstance(text, str) and text.startswith("~") and not Path(text).exists():
            value = os.path.expanduser(text)  # noqa: PTH111 - leaves a user that is unknown
        return super().convert(value, param, ctx)
