"""Checks a runner of ``generate --on``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llamakit.errors import PluginError
from llamakit.plugin_manager.contracts.runners import checked_pieces
from llamakit.plugin_manager.registry import Entry, Source
from llamakit.protocols import AnswerJob, AnswerPiece, Runner
from llamakit.testing.process_state import ContractError

_OURS = Entry("runner", "", None, "", Source("", "", "", builtin=False))


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
    try:
        found = _answers(checked_pieces(_OURS, runner(job(requests)), range(5, 8)))
    except PluginError as error:
        raise ContractError(f"the runner {str(error).partition(') ')[2]}") from error
    if found != expected:
        raise ContractError("the runner's answers differ from those of one process")


def _answers(pieces: Iterator[AnswerPiece]) -> dict[int, Mapping[str, Any]]:
    return {it.index: it.answer for it in pieces if it.answer is not None}
