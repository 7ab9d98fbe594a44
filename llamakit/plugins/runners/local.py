"""Answers prompts in this process, with one replica: what ``generate`` does without ``--on``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl
from llamakit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import AnswerJob, AnswerPiece, Runner


def run(job: AnswerJob) -> Iterator[AnswerPiece]:
    """Answer the requests of a job.

    Raises:
        UsageError: it is to be at an address, or to have several replicas.
    """
    if job.address or (job.replicas or 1) > 1:
        raise UsageError(
            "--on local is one replica in this process: it takes no address and no other "
            "--replicas; --on ray has several"
        )
    with job.open() as replica:
        yield from replica.answer(job.requests)


@hookimpl
def register_runners(runners: Registrar[Runner]) -> None:
    """Offer ``local``."""
    runners.register("local", run, help="in this process, as without --on")
