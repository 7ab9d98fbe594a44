"""The contract of logits processors."""

from __future__ import annotations

from typing import Any

from llamakit.plugin_manager.contracts.sampling import processor_fault
from llamakit.protocols import LogitsProcessorFactory
from llamakit.testing import play
from llamakit.testing.factory import check_factory, check_nonsense, entry_for, make
from llamakit.testing.registration import check_registration_of
from llamakit.testing.world import ContractError, left_alone


def check_logits_processor(factory: LogitsProcessorFactory, **options: Any) -> None:
    """Check that a factory makes a logits processor that llamakit can use.

    Args:
        factory: what the plugin registers.
        options: for the factory; its defaults, if none are given.

    Raises:
        AssertionError: a rule is broken; the sentence says which, and what to do.
    """
    __tracebackhide__ = True
    entry = entry_for("processor", factory)
    check_registration_of(factory)
    check_factory(entry)
    what = str(entry)
    ask = play.asking(what, make(entry, options), processor_fault)
    with left_alone(what):
        ask(*play.batch())
    play.check_rows_are_left(what, ask)
    _check_one_id_left(ask)
    _check_the_same_again(what, ask, play.asking(what, make(entry, options), processor_fault))
    _check_alone_as_together(what, ask)
    check_nonsense(
        entry, options, lambda made: play.asking(what, made, processor_fault)(*play.batch())
    )


def _check_one_id_left(ask: play.Step) -> None:
    """Check that a row keeps the one id that a grammar, say, has left it."""
    __tracebackhide__ = True
    logits, rows = play.batch()
    logits[1] = play.one_id_left(31)
    ask(logits, rows)


def _check_the_same_again(what: str, ask: play.Step, another: play.Step) -> None:
    __tracebackhide__ = True
    first = play.play(play.TOGETHER, ask)
    for again in (ask, another):
        if not _are_equal(play.play(play.TOGETHER, again), first):
            raise ContractError(
                f"{what} gives other logits for the same rows: draw from row.generator only, and "
                "keep nothing outside row.state"
            )


def _check_alone_as_together(what: str, ask: play.Step) -> None:
    __tracebackhide__ = True
    together = play.play(play.TOGETHER, ask)
    schedules = [play.COMING_AND_GOING, *map(play.alone, range(play.ROWS))]
    for schedule in schedules:
        for number, edited in play.play(schedule, ask).items():
            if not _are_equal({number: edited}, {number: together[number]}):
                raise ContractError(
                    f"{what} gives row {number} other logits when its neighbours change: compute "
                    "each row by itself, and remember in its row.state"
                )


def _are_equal(a: dict[int, list[Any]], b: dict[int, list[Any]]) -> bool:
    """Compare logits; their last bits may depend on the size of the batch."""
    import torch

    return all(
        torch.allclose(one, other, rtol=1e-4, atol=1e-4)
        for number in b
        for one, other in zip(a[number], b[number], strict=True)
    )
