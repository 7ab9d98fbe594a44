"""Worker processes of a command with several ranks; rank 0 is the command's own process.

torch's elastic launcher gives its workers an empty stdin or a session of their own; here the
command keeps the terminal, its history and Ctrl-C, and only the other ranks are new processes.
They are started before torch is imported here, so that all processes import it at the same time.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import IO

from llamakit.cores import available_cores
from llamakit.errors import ParallelError
from llamakit.runtime.rank_links import SOCKETS, Links, wait_for_workers

IDLE = timedelta(days=365)
"""How long a rank waits for the next message: a chat may be idle overnight. A rank that dies is
noticed at once, by its closed connection."""

EXIT_TIMEOUT = 10
"""Seconds to wait for a rank to exit before it is killed."""
NOTICE_TIMEOUT = 5
"""Seconds for a rank to notice by itself that another has exited."""


_SECRET_NAMES = re.compile(
    r"LLAMAKIT_URL|.*(TOKEN|SECRET|PASS|CREDENTIAL|KEY|AUTH|PROXY).*|.*_(PAT|DSN)", re.IGNORECASE
)
_SECRET_VALUES = re.compile(r"://[^/\s]*@|[?&](Signature|X-Amz-Signature|sig)=", re.IGNORECASE)
"""An address with a password in it, and a signed one."""

_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; del sys.argv[1:]; "
    "from llamakit.llama.worker import main; sys.exit(main())"
)
"""What a worker runs. With ``-m`` it would import what is in the current folder, which may be a
checkpoint of others with a ``torch.py`` in it; so it imports from where this process does."""


class Workers:
    """Ranks 1 to ``size - 1``, each a process of its own.

    Args:
        links: what connects the ranks, rank 0's first; the workers' are closed here.
    """

    def __init__(self, links: Sequence[Links]) -> None:
        self.size = len(links)
        self._links = links[0]
        self._errors: list[IO[bytes]] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for link in links[1:]:
                self._start(link)
        except BaseException:
            self.kill()
            raise
        finally:
            for link in links[1:]:
                link.close()

    def _start(self, links: Links) -> None:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in join)
        self._errors.append(errors)
        threads = max(1, available_cores() // self.size)
        environment = (
            {"OMP_NUM_THREADS": str(threads)}
            | harmless_environment()
            | {
                "RANK": str(links.rank),
                "LOCAL_RANK": str(links.rank),
                "WORLD_SIZE": str(self.size),
                SOCKETS: ",".join(map(str, links.descriptors)),
            }
        )
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *map(os.path.abspath, sys.path)],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env=environment,
            pass_fds=links.descriptors,
            start_new_session=True,  # the terminal's Ctrl-C is for rank 0
        )
        self._processes.append(process)

    def wait_until_ready(self, timeout: float) -> None:
        """Wait until every rank has said that it is there.

        Args:
            timeout: seconds.
        Raises:
            ParallelError: a rank ended instead, or took too long.
        """
        if missing := wait_for_workers(self._links, timeout):
            message = self.exit_message()
            ranks = ", ".join(map(str, missing))
            raise ParallelError(message or f"rank {ranks} did not start within {timeout:g} s")

    def exit_message(self, patience: float = 2.0) -> str | None:
        """Return which rank has exited, how, and its last line of output; None if all are running.

        Args:
            patience: seconds to wait for an exit that is just being noticed.
        """
        deadline = time.monotonic() + patience
        while True:
            ended = [
                (status >= 0, rank, status)  # one that was killed is why the others exited
                for rank, process in enumerate(self._processes, start=1)
                if (status := process.poll()) is not None
            ]
            if ended:
                _, rank, status = min(ended)
                how = _describe_status(status)
                return f"rank {rank} of {self.size} ended ({how}){self._last_line(rank)}"
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.05)

    def _last_line(self, rank: int) -> str:
        errors = self._errors[rank - 1]
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""

    def kill(self) -> None:
        """Kill all ranks at once."""
        for process in self._processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        self.join()

    def join(self) -> None:
        """Wait for all ranks to exit; kill those that take too long."""
        deadline = time.monotonic() + EXIT_TIMEOUT
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for errors in self._errors:
            errors.close()
        self._links.close()


def harmless_environment() -> dict[str, str]:
    """Return what a worker inherits: it needs neither the link, nor a key, nor a network."""
    return {
        name: value
        for name, value in os.environ.items()
        if not _SECRET_NAMES.fullmatch(name) and not _SECRET_VALUES.search(value)
    }


def end_with_parent() -> None:
    """Exit when the process that launched this rank is gone, even if a call blocks."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        time.sleep(NOTICE_TIMEOUT)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _describe_status(status: int) -> str:
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"
