"""The contract of samplers."""

from __future__ import annotations

from typing import Any

from llamakit.plugin_manager.contracts.sampling import sampler_fault
from llamakit.protocols import SamplerFactory
from llamakit.testing import play
from llamakit.testing.factory import check_factory, check_nonsense, entry_for, make
from llamakit.testing.registration import check_registration_of
from llamakit.testing.world import ContractError, left_alone


def check_sampler(factory: SamplerFactory, **options: Any) -> None:
    """Check that a factory makes a sampler that llamakit can use.

    Args:
        factory: what the plugin registers.
        options: for the factory; its defaults, if none are given.

    Raises:
        AssertionError: a rule is broken; the sentence says which, and what to do.
    """
    __tracebackhide__ = True
    entry = entry_for("sampler", factory)
    check_registration_of(factory)
    check_factory(entry)
    what = str(entry)
    ask = play.asking(what, make(entry, options), sampler_fault)
    with left_alone(what):
        ask(*play.batch())
    play.check_rows_are_left(what, ask)
    _check_the_same_again(what, ask, play.asking(what, make(entry, options), sampler_fault))
    _check_alone_as_together(what, ask)
    _check_one_id_left(ask)
    check_nonsense(
        entry, options, lambda made: play.asking(what, made, sampler_fault)(*play.batch())
    )


def _check_one_id_left(ask: play.Step) -> None:
    """Check that a row survives of which a grammar, say, has left one id."""
    __tracebackhide__ = True
    logits, rows = play.batch()
    logits[1] = play.one_id_left(31)
    ask(logits, rows)


def _check_the_same_again(what: str, ask: play.Step, another: play.Step) -> None:
    __tracebackhide__ = True
    first = play.play(play.TOGETHER, ask)
    for again in (ask, another):
        if play.play(play.TOGETHER, again) != first:
            raise ContractError(
                f"{what} gives other ids for the same seeds: draw from row.generator only "
                "(llamakit.sampling.draw_ids does), and keep nothing outside row.state"
            )


def _check_alone_as_together(what: str, ask: play.Step) -> None:
    __tracebackhide__ = True
    together = play.play(play.TOGETHER, ask)
    schedules = [play.COMING_AND_GOING, *map(play.alone, range(play.ROWS))]
    for schedule in schedules:
        for number, ids in play.play(schedule, ask).items():
            if ids != together[number]:
                raise ContractError(
                    f"{what} gives row {number} other ids when its neighbours change: compute each "
                    "row by itself, draw from its own row.generator, and remember in its row.state"
                )
