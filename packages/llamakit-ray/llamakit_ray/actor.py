"""A replica as an actor of Ray Data: it is called with a block of requests."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llamakit.errors import LlamakitError
from llamakit.files.json_reader import parse_json


class ReplicaActor:
    """Loads the model of a job once, and answers blocks of its requests.

    What is wrong with the files or with a request is an answer, too: Ray would try again.

    Args:
        options: of the job, in JSON.
        folder: what its relative paths start from.
        threads: for each rank, as ``OMP_NUM_THREADS`` has them.
    """

    def __init__(self, options: str, folder: str, threads: str) -> None:
        self._error = ""
        os.environ["OMP_NUM_THREADS"] = threads  # before torch is imported, here and in ranks
        try:
            self._open(options, folder)
        except LlamakitError as error:
            self._error = error.for_commands

    def _open(self, options: str, folder: str) -> None:
        if not Path(folder).is_dir():
            raise LlamakitError(
                f"there is no folder {folder} here: the model and what the options name have to "
                "be at the same place on every machine, as on a shared file system"
            )
        os.chdir(folder)
        from llamakit.api import open_replica

        self._replica = open_replica(parse_json(options, "the options of the job"))

    def __call__(self, block: Mapping[str, Any]) -> Iterator[dict[str, list[Any]]]:
        """Answer a block of requests; yield a row for each answer."""
        try:
            if self._error:
                raise LlamakitError(self._error)
            requests = [parse_json(str(it), "a request") for it in block["request"]]
            for piece in self._replica.answer(requests):
                if piece.answer is not None:
                    yield _row(piece.index, answer=json.dumps(piece.answer))
        except LlamakitError as error:
            yield _row(-1, error=f"the replica on {socket.gethostname()}: {error.for_commands}")


def _row(index: int, answer: str = "", error: str = "") -> dict[str, list[Any]]:
    return {"index": [index], "answer": [answer], "error": [error]}
