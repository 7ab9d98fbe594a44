"""A command of the checkpoint tools that all ranks of torchrun run together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llamakit.checkpoint.teamwork import working_in

if TYPE_CHECKING:
    from llamakit.runtime.rank_environment import RankEnvironment

DIVIDED = frozenset({"edit", "export", "import", "quantize", "reshard", "verify"})
"""Commands whose files are divided over the ranks; each runs all of the command."""


def is_divided(arguments: Sequence[str]) -> bool:
    """Tell whether a command line is of such a command, and does not only ask for its help."""
    words = [word for word in arguments if not word.startswith("-")]
    asks = {"-h", "--help", "--plan", "--version"}.intersection(arguments)
    return bool(words) and words[0] in DIVIDED and not asks


def run_together(
    environment: RankEnvironment,
    run: Callable[[], int | None],
    status_of: Callable[[Callable[[], int | None]], int],
) -> int:
    """Run a command on this rank, together with the others; return the exit status of all.

    Rank 0 alone prints: what it has found, or what has stopped any of them.

    Args:
        run: the command; raises what stops it.
        status_of: does some work, prints what stops it, and returns an exit status.
    """
    from llamakit.runtime.rank_environment import join_timeout
    from llamakit.runtime.store_team import join_team

    shown = sys.stdout, sys.stderr

    def work() -> int:
        team = join_team(environment, join_timeout(None))
        if not team.leads:  # rank 0 says what there is to say, a wrong command line too
            sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
        with working_in(team):
            try:
                status = int(team.gather(run() or 0)[0])
            except BaseException as error:
                team.fail(error)
                raise
            team.close()
            return status

    try:
        return status_of(work)
    finally:
        sys.stdout, sys.stderr = shown  # a bug is shown, whoever has it
