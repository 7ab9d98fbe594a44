"""The contract of samplers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llamakit.protocols import SamplerFactory
from llamakit.testing import play
from llamakit.testing.factory import check_factory, check_nonsense, entry_for, make
from llamakit.testing.registration import check_registration_of
from llamakit.testing.world import ContractError, left_alone

if TYPE_CHECKING:
    import torch


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
    ask = play.asking(what, make(entry, options), check_ids)
    with left_alone(what):
        ask(*play.batch())
    play.check_rows_are_left(what, ask)
    _check_the_same_again(what, ask, play.asking(what, make(entry, options), check_ids))
    _check_alone_as_together(what, ask)
    _check_one_id_left(ask)
    check_nonsense(entry, options, lambda made: play.asking(what, made, check_ids)(*play.batch()))


def check_ids(what: str, ids: Any, logits: torch.Tensor) -> None:
    """Check that ids are ``(B,)`` int64 within the vocabulary, and none of them ruled out."""
    import torch

    __tracebackhide__ = True
    count, vocabulary = logits.shape
    if not isinstance(ids, torch.Tensor):
        raise ContractError(f"{what} returns {type(ids).__name__}: return a tensor of ids")
    if ids.shape != (count,) or ids.dtype != torch.int64:
        raise ContractError(
            f"{what} returns {tuple(ids.shape)} {ids.dtype} for {count} rows: return ({count},) "
            "torch.int64, an id for each row (argmax(dim=-1) and gather give that)"
        )
    if ids.device != logits.device:
        raise ContractError(
            f"{what} returns ids on {ids.device} for logits on {logits.device}: "
            "make them where the logits are"
        )
    if bool(((ids < 0) | (ids >= vocabulary)).any()):
        raise ContractError(
            f"{what} returns the ids {ids.tolist()}: they have to be from 0 to "
            f"{vocabulary - 1}, places in the last axis of the logits"
        )
    if bool((logits.gather(1, ids[:, None]) == -torch.inf).any()):
        raise ContractError(
            f"{what} picks an id whose logit is -inf: a processor has ruled it "
            "out, and nothing may bring it back"
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
