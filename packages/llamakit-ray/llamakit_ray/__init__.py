"""``llamakit generate --on ray``: a batch of prompts on the replicas of a Ray cluster.

Ray is imported when the runner is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import AnswerJob, AnswerPiece, Runner


class RayRunner:
    """Answers prompts on replicas that are actors of Ray Data."""

    def __call__(self, job: AnswerJob) -> Iterator[AnswerPiece]:
        """Answer the requests of a job. Raises: as ``llamakit_ray.run.answers``."""
        from llamakit_ray.run import answers

        return answers(job)

    def read_prompts(self, file: str, address: str) -> Iterable[Any]:
        """Read prompts from Parquet or JSON Lines, from wherever Ray reads files."""
        from llamakit_ray.prompt_files import read_prompts

        return read_prompts(file, address)


@hookimpl
def register_runners(runners: Registrar[Runner]) -> None:
    """Offer ``ray``."""
    runners.register(
        "ray", RayRunner(), help="a Ray cluster: ray:HOST:PORT, ray:auto, or one of its own here"
    )
