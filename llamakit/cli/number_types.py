"""The types of options that take a number: one spelling, and bounds that system calls have too.

Python would read ``5_000`` and Arabic digits as numbers, and ``nan`` is in every range of Click's.
"""

from __future__ import annotations

from typing import Any

import click

from llamakit.llama.seeds import check_seed
from llamakit.plugin_manager.option_types import number, whole_number

MOST = (1 << 31) - 1
"""Of any number: larger ones overflow in system calls, as seconds, or in torch, as sizes."""


class WholeNumber(click.IntRange):
    """A whole number in decimal digits, up to ``MOST``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a string."""
        try:
            value = whole_number(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        _check_size(self, value, param, ctx)
        return super().convert(value, param, ctx)


class Number(click.FloatRange):
    """A number in decimal digits, with a point or an exponent, up to ``MOST``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a string."""
        try:
            value = number(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        _check_size(self, value, param, ctx)
        return super().convert(value, param, ctx) + 0.0  # -0.0 becomes 0.0


class Seed(click.ParamType[int]):
    """A seed: any whole number of 64 bits."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a string."""
        try:
            return check_seed(whole_number(value) if isinstance(value, str) else value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


def _check_size(
    kind: click.IntRange | click.FloatRange,
    value: float,
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> None:
    if kind.max is None and value > MOST:
        kind.fail(f"{value} is too large a number: {MOST} at most.", param, ctx)
