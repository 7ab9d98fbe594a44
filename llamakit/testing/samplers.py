"""The contract of samplers."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from llamakit.protocols import SamplerFactory
from llamakit.testing import play
from llamakit.testing.factory import check_factory, check_nonsense, entry_for, make, said
from llamakit.testing.registration import check_registration_of
from llamakit.testing.rows import KitRow
from llamakit.testing.world import ContractError, left_alone

if TYPE_CHECKING:
    import torch

    from llamakit.protocols import Sampler


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
    sampler: Sampler = make(entry, options)
    with left_alone(what):
        _check_ids(what, sampler)
    _check_rows_are_left(what, sampler)
    _check_one_id_left(what, sampler)
    _check_the_same_again(what, sampler, make(entry, options))
    _check_alone_as_together(what, sampler)
    check_nonsense(entry, options, lambda made: _check_ids(what, made))


def _check_ids(what: str, sampler: Sampler) -> None:
    """Check shape, dtype and range of what one step returns."""
    __tracebackhide__ = True
    logits, rows = play.batch()
    ids = _ask(what, sampler, logits.clone(), rows)
    check_shape(what, ids, logits)
    ruled_out = [
        number
        for number, token in enumerate(ids.tolist())
        if logits[number, token] == -float("inf")
    ]
    if ruled_out:
        raise ContractError(
            f"{what} picks an id whose logit is -inf: a processor has ruled it "
            "out, and nothing may bring it back"
        )


def check_shape(what: str, ids: Any, logits: torch.Tensor) -> None:
    """Check that ids are ``(B,)`` int64 within the vocabulary."""
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


def _check_rows_are_left(what: str, sampler: Sampler) -> None:
    __tracebackhide__ = True
    logits, rows = play.batch()
    before = deepcopy([(row.tokens, row.prompt_length, row.stop_tokens) for row in rows])
    _ask(what, sampler, logits, rows)
    if before != [(row.tokens, row.prompt_length, row.stop_tokens) for row in rows]:
        raise ContractError(
            f"{what} changes row.tokens: llamakit appends the id that it returns; "
            "keep what else is to be remembered in row.state"
        )


def _check_one_id_left(what: str, sampler: Sampler) -> None:
    """Check that a row survives of which a grammar, say, has left one id."""
    __tracebackhide__ = True
    logits, rows = play.batch()
    logits[1] = play.one_id_left(31)
    check_shape(what, _ask(what, sampler, logits.clone(), rows), logits)


def _check_the_same_again(what: str, sampler: Sampler, another: Sampler) -> None:
    __tracebackhide__ = True
    first = play.play(play.TOGETHER, sampler)
    for again in (sampler, another):
        if play.play(play.TOGETHER, again) != first:
            raise ContractError(
                f"{what} gives other ids for the same seeds: draw from row.generator only "
                "(llamakit.sampling.draw_ids does), and keep nothing outside row.state"
            )


def _check_alone_as_together(what: str, sampler: Sampler) -> None:
    __tracebackhide__ = True
    together = play.play(play.TOGETHER, sampler)
    schedules = [play.COMING_AND_GOING, *map(play.alone, range(play.ROWS))]
    for schedule in schedules:
        for number, ids in play.play(schedule, sampler).items():
            if ids != together[number]:
                raise ContractError(
                    f"{what} gives row {number} other ids when its neighbours change: compute each "
                    "row by itself, draw from its own row.generator, and remember in its row.state"
                )


def _ask(what: str, sampler: Sampler, logits: torch.Tensor, rows: Sequence[KitRow]) -> Any:
    """Sample once, as llamakit does."""
    import torch

    __tracebackhide__ = True
    try:
        with torch.inference_mode():
            return sampler(logits, rows)
    except ContractError:
        raise
    except Exception as error:
        raise ContractError(
            f"{what} fails on logits {tuple(logits.shape)}: {said(error)}"
        ) from error
