"""Runners, which answer the prompts of ``generate --on``: here, or on other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["AnswerJob", "AnswerPiece", "Replica", "Runner", "RunnerCapabilities"]


@dataclass(frozen=True)
class AnswerPiece:
    """What has been added to one answer since the last piece of it.

    Args:
        index: of its request.
        tokens: how many new tokens there are.
        text: what they are, as far as its characters are complete.
        answer: with the last piece, the whole answer, as JSON can hold it.
    """

    index: int
    tokens: int
    text: str
    answer: Mapping[str, Any] | None = None


class Replica(Protocol):
    """A loaded model that answers requests, as ``llamakit.api.open_replica`` returns it."""

    def answer(self, requests: Sequence[Mapping[str, Any]], /) -> Iterator[AnswerPiece]:
        """Answer requests, several at a time.

        Args:
            requests: of a job, each with its index and its seed.
        Raises:
            LlamakitError: a request cannot be answered; none of these has been then.
        """
        ...


@dataclass(frozen=True)
class AnswerJob:
    """What a runner is called with.

    Args:
        options: the model, and how it answers; JSON can hold them, and ``open_replica`` takes them
            in any process that sees the same files.
        requests: a prompt each, with its ``index`` and its ``seed``; JSON can hold them. An answer
            depends on its request and on the options alone, so each may go to any replica.
        address: what follows the runner's name in ``--on NAME:ADDRESS``, or nothing.
        replicas: how many loaded models to have; None leaves it to the runner.
        open: opens a replica in this process, and shows how far it is.
        check: refuses a request that cannot be answered, with the tokenizer alone; a replica does
            so too, when it is asked.
    """

    options: Mapping[str, Any]
    requests: Sequence[Mapping[str, Any]]
    address: str
    replicas: int | None
    open: Callable[[], AbstractContextManager[Replica]]
    check: Callable[[], None]


class Runner(Protocol):
    """Answers the requests of a job, on replicas wherever they are."""

    def __call__(self, job: AnswerJob, /) -> Iterator[AnswerPiece]:
        """Answer every request of a job.

        Yields:
            What the replicas yield, of all answers in any order; the last piece of each answer
            once. What was yielded is on disk when the next piece is asked for.
        """
        ...


class RunnerCapabilities(Runner, Protocol):
    """What a runner may offer besides, as a method, or as an attribute of a function."""

    def read_prompts(self, file: str, address: str, /) -> Iterable[Any]:
        """Read the file of ``--prompts``: yield what would be a line of JSON Lines each, in order.

        Without it, the file is JSON Lines on this machine.
        """
        ...
