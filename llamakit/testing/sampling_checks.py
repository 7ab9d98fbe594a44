"""Checks samplers and logits processors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llamakit.plugin_manager.contracts.samplers import Contract, processor_fault, sampler_fault
from llamakit.protocols import LogitsProcessorFactory, SamplerFactory
from llamakit.testing import batch_runs
from llamakit.testing.factory_checks import check_factory, check_nonsense, make
from llamakit.testing.process_state import ContractError, left_alone


def check_sampler(factory: SamplerFactory, **options: Any) -> None:
    """Check that a factory makes a sampler that llamakit can use.

    Args:
        factory: what the plugin registers.
        options: for the factory; its defaults, if none are given.

    Raises:
        AssertionError: a rule is broken; the sentence says which, and what to do.
    """
    __tracebackhide__ = True
    _check("sampler", factory, options, sampler_fault)


def check_logits_processor(factory: LogitsProcessorFactory, **options: Any) -> None:
    """Check that a factory makes a logits processor that llamakit can use.

    Args:
        factory: what the plugin registers.
        options: for the factory; its defaults, if none are given.

    Raises:
        AssertionError: a rule is broken; the sentence says which, and what to do.
    """
    __tracebackhide__ = True
    _check("processor", factory, options, processor_fault)


def _check(
    kind: str, factory: Callable[..., Any], options: dict[str, Any], fault_of: Contract
) -> None:
    __tracebackhide__ = True
    entry = check_factory(kind, factory)
    name = str(entry)
    step = batch_runs.checked(name, make(entry, options), fault_of)
    with left_alone(name):
        step(*batch_runs.batch())
    batch_runs.check_rows_are_left(name, step)
    _check_the_same_again(name, step, batch_runs.checked(name, make(entry, options), fault_of))
    _check_alone_as_together(name, step)
    _check_one_token_left(step)
    check_nonsense(
        entry,
        options,
        lambda step: batch_runs.checked(name, step, fault_of)(*batch_runs.batch()),
    )


def _check_one_token_left(step: batch_runs.Step) -> None:
    """Check a row of which a grammar, say, has left one token."""
    __tracebackhide__ = True
    logits, rows = batch_runs.batch()
    logits[1] = batch_runs.one_token_left(31)
    step(logits, rows)


def _check_the_same_again(name: str, step: batch_runs.Step, another: batch_runs.Step) -> None:
    __tracebackhide__ = True
    first = batch_runs.run(batch_runs.TOGETHER, step)
    for again in (step, another):
        results = batch_runs.run(batch_runs.TOGETHER, again)
        if not all(_are_equal(results[number], first[number]) for number in first):
            raise ContractError(
                f"{name} gives other results for the same rows and seeds: draw from row.generator "
                "only (llamakit.sampling.draw_ids does), and keep nothing outside row.state"
            )


def _check_alone_as_together(name: str, step: batch_runs.Step) -> None:
    __tracebackhide__ = True
    together = batch_runs.run(batch_runs.TOGETHER, step)
    schedules = [
        batch_runs.COMING_AND_GOING,
        *map(batch_runs.alone, range(batch_runs.ROWS)),
    ]
    for schedule in schedules:
        for number, results in batch_runs.run(schedule, step).items():
            if not _are_equal(results, together[number]):
                raise ContractError(
                    f"{name} gives row {number} other results when its neighbours change: compute "
                    "each row by itself, draw from its own row.generator, and remember in its "
                    "row.state"
                )


def _are_equal(results: list[Any], others: list[Any]) -> bool:
    """Compare tokens, or logits, whose last bits may depend on the size of the batch."""
    import torch

    return all(
        torch.allclose(torch.as_tensor(one), torch.as_tensor(other), rtol=1e-4, atol=1e-4)
        for one, other in zip(results, others, strict=True)
    )
