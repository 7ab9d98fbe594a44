"""Checks a runner of ``generate --on``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llamakit.plugin_manager.contracts.runners import checked_pieces
from llamakit.protocols import AnswerJob, AnswerPiece, Runner
from llamakit.testing.process_state import ContractError


def check_runner(runner: Runner, *, address: str = "", replicas: int | None = None) -> None:
    """Check that a runner answers a few prompts with the bundled demo model, as one process does.

    Args:
        runner: what the plugin registers.
        address: where it is to answer them.
        replicas: how many it is to have.

    Raises:
        AssertionError: an answer is missing, is there twice, or differs.
    """
    __tracebackhide__ = True
    from llamakit import demo
    from llamakit.api import open_replica

    options = {"model": str(demo.path()), "loading": {"dtype": "float32"}, "max_new_tokens": 4}
    requests = [{"index": it, "prompt": "Once upon a time", "seed": it} for it in range(5, 8)]

    def job(some: Sequence[Mapping[str, Any]]) -> AnswerJob:
        return AnswerJob(
            options, some, address, replicas, lambda: open_replica(options), lambda: None
        )

    with open_replica(options) as replica:
        expected = _answers(replica.answer(requests))
    found = _answers(checked_pieces(runner(job(requests)), range(5, 8), _breach))
    if found != expected:
        raise ContractError("the runner's answers differ from those of one process")


def _breach(fault: str) -> ContractError:
    return ContractError(f"the runner {fault}")


def _answers(pieces: Iterator[AnswerPiece]) -> dict[int, Mapping[str, Any]]:
    return {it.index: it.answer for it in pieces if it.answer is not None}
