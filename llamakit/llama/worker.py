"""The program of the ranks other than 0: it joins, loads its slice and follows rank 0.

``llamakit generate --model-parallel-size N`` launches it N - 1 times (``runtime/launch``); under
``torchrun -m llamakit …`` every rank but 0 runs this instead of the command.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time


def main(join_timeout: float | None = None) -> int:
    """Follow rank 0 until its "bye"; return the exit status.

    Args:
        join_timeout: as ``Llama.open``.
    Raises:
        ParallelError: under torchrun, the ranks have not found each other.
    """
    from llamakit.errors import LlamakitError, ParallelError
    from llamakit.runtime import launch, rank_setup
    from llamakit.runtime.rank_links import SOCKETS

    logging.getLogger("llamakit").setLevel(logging.ERROR)  # rank 0 has given the warnings
    if SOCKETS in os.environ:
        signals = _ignore_signals()
        launch.end_with_parent()
        group = rank_setup.join_as_worker(join_timeout)
    else:
        group = rank_setup.join_as_worker(join_timeout)  # until then, Ctrl-C cancels
        signals = _ignore_signals()
    try:
        while (message := group.follow())[0] != "bye":
            if message[0] == "load":
                _load(message[1], group)
    except ParallelError as error:
        time.sleep(launch.NOTICE_TIMEOUT)  # rank 0 reports it, or torchrun ends this rank meanwhile
        if not signals:
            print(f"llamakit: {error.for_commands}", file=sys.stderr)  # noqa: T201
        return error.exit_status
    except LlamakitError as error:
        print(f"llamakit: {error.for_commands}", file=sys.stderr)  # noqa: T201
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

    assert isinstance(spec, dict)
    assert isinstance(group, RankGroup)
    with contextlib.suppress(*FAILURES):  # reported by rank 0
        load_slice(LoadSpec(**spec), group)


def dismiss() -> None:
    """End the ranks that torchrun started, when rank 0's command ends.

    Raises:
        ParallelError: they have not come, and no command has awaited them before.
    """
    from llamakit.runtime import rank_setup
    from llamakit.runtime.rank_group import RankGroup

    if rank_setup.has_failed():
        return
    group = rank_setup.join(None, led=True)
    if isinstance(group, RankGroup):
        group.close()
