"""A rank that is not the first: it joins, loads its slices and does what rank 0 asks.

``llamakit generate --model-parallel-size N`` launches ``python -m llamakit.llama.worker`` N - 1
times; under ``torchrun -m llamakit …`` every rank but 0 runs this instead of the command.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time


def main() -> int:
    """Follow rank 0 until it says goodbye; return the exit status."""
    from llamakit.errors import LlamakitError, ParallelError
    from llamakit.runtime import launch, parallel

    logging.getLogger("llamakit").setLevel(logging.ERROR)  # rank 0 has given the warnings
    told_to_end = _outlast_signals()
    if launch.STORE_PORT in os.environ:
        launch.end_with_parent()
    group = parallel.join_as_worker()
    try:
        while (message := group.follow())[0] != "bye":
            if message[0] == "load":
                _load(message[1], group)
    except ParallelError as error:
        time.sleep(launch.NOTICING)  # rank 0 says it, or torchrun ends this rank meanwhile
        if not told_to_end:
            print(f"llamakit: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_status
    except LlamakitError as error:
        print(f"llamakit: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_status
    finally:
        group.close()
    return 0


def _outlast_signals() -> list[int]:
    """Go on after SIGTERM and Ctrl-C, and return the list that takes those that have come.

    A terminal and torchrun send them to every rank. What rank 0 does then, such as finishing the
    answers of a server, needs the others; when it ends, they do.
    """
    came: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda which, _frame: came.append(which))
    return came


def _load(spec: object, group: object) -> None:
    import contextlib

    from llamakit.llama.loading import FAILURES, LoadSpec, load_slice
    from llamakit.runtime.parallel import RankGroup

    assert isinstance(spec, LoadSpec)
    assert isinstance(group, RankGroup)
    with contextlib.suppress(*FAILURES):  # rank 0 has been told, and says so
        load_slice(spec, group)


def dismiss() -> None:
    """Let the ranks that torchrun started go, when rank 0's command ends."""
    from llamakit.runtime import parallel

    group = parallel.join(None, led=True)
    if isinstance(group, parallel.RankGroup):
        group.close()


if __name__ == "__main__":
    sys.exit(main())
