"""``--part I/N``: one of N parts of a file, for the tasks of an array that share nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import click

from llamakit.cli.number_types import MOST


@dataclass(frozen=True)
class Part:
    """Every ``count``-th line, from the ``number``-th on; both count from 1.

    Lines that are added to a file stay out of the way of those before: each stays in its part.
    Neighbors, which are often of one kind and length, go to different parts.
    """

    number: int
    count: int

    def indexes(self, total: int) -> range:
        """Return which of so many lines are in the part, from 0."""
        return range(self.number - 1, total, self.count)

    def __str__(self) -> str:
        """Return it as it is typed."""
        return f"{self.number}/{self.count}"


class PartType(click.ParamType[Part]):
    """Reads ``I/N``."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a string."""
        if isinstance(value, Part):
            return value
        digits = re.fullmatch(r"([0-9]{1,10})/([0-9]{1,10})", value)
        if digits is None:
            self.fail(
                f"{value!r} is no part: expected I/N, such as 2/8 for the second of eight. Is the "
                "variable set that it is made of?",
                param,
                ctx,
            )
        number, count = int(digits[1]), int(digits[2])
        if not 1 <= number <= count <= MOST:
            self.fail(
                f"there is no part {value}: parts count from 1, so 1/{count or 8} is the first of "
                f"{count or 8}. Add 1 to an index that counts from 0, such as Kubernetes' "
                "JOB_COMPLETION_INDEX.",
                param,
                ctx,
            )
        return Part(number, count)
