"""The program of the ranks other than 0: it joins, loads its slice and follows rank 0.

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
    """Follow rank 0 until its "bye"; return the exit status."""
    from llamakit.errors import LlamakitError, ParallelError
    from llamakit.runtime import launch, rank_setup

    logging.getLogger("llamakit").setLevel(logging.ERROR)  # rank 0 has given the warnings
    signals = _ignore_signals()
    if launch.STORE_PORT in os.environ:
        launch.end_with_parent()
    group = rank_setup.join_as_worker()
    try:
        while (message := group.follow())[0] != "bye":
            if message[0] == "load":
                _load(message[1], group)
    except ParallelError as error:
        time.sleep(launch.NOTICE_TIMEOUT)  # rank 0 reports it, or torchrun ends this rank meanwhile
        if not signals:
            print(f"llamakit: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_status
    except LlamakitError as error:
        print(f"llamakit: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_status
    finally:
        group.close()
    return 0


def _ignore_signals() -> list[int]:
    """Keep running after SIGTERM and Ctrl-C; return a list that collects these signals.

    A terminal and torchrun send them to every rank. Rank 0 then still needs the others, such as to
    finish the answers of a server; when it ends, they do.
    """
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda which, _frame: received.append(which))
    return received


def _load(spec: object, group: object) -> None:
    import contextlib

    from llamakit.llama.loading import FAILURES, LoadSpec, load_slice
    from llamakit.runtime.rank_group import RankGroup

    assert isinstance(spec, LoadSpec)
    assert isinstance(group, RankGroup)
    with contextlib.suppress(*FAILURES):  # reported by rank 0
        load_slice(spec, group)


def dismiss() -> None:
    """End the ranks that torchrun started, when rank 0's command ends."""
    from llamakit.runtime import rank_setup
    from llamakit.runtime.rank_group import RankGroup

    group = rank_setup.join(None, led=True)
    if isinstance(group, RankGroup):
        group.close()


if __name__ == "__main__":
    sys.exit(main())
