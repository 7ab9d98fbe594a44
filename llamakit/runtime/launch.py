"""Worker processes of a command with several ranks; rank 0 is the command's own process.

torch's elastic launcher gives its workers an empty stdin or a session of their own; here the
command keeps the terminal, its history and Ctrl-C, and only the other ranks are new processes.
They are started before torch is imported here, so that all processes import it at the same time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from datetime import timedelta
from typing import IO, TYPE_CHECKING

from llamakit.errors import ParallelError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # public, not declared

IDLE = timedelta(days=365)
"""How long a rank waits for the next message: a chat may be idle overnight. A rank that dies is
noticed at once, by its closed connection."""

STORE_PORT = "LLAMAKIT_STORE_PORT"
"""The environment variable with the port of rank 0's store."""

START_TIMEOUT = 300
"""Seconds to wait for a rank to start."""
EXIT_TIMEOUT = 10
"""Seconds to wait for a rank to exit before it is killed."""
NOTICE_TIMEOUT = 5
"""Seconds for a rank to notice by itself that another has exited."""


def listen() -> socket.socket:
    """Return a socket that listens on a free loopback port, for the ranks' rendezvous."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(False)
    return listener


def open_store(size: int, listener: socket.socket) -> Store:
    """Open the rendezvous store on rank 0."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    host, port = listener.getsockname()
    store: Store = TCPStore(
        host,
        port,
        size,
        is_master=True,
        wait_for_workers=False,
        timeout=IDLE,
        master_listen_fd=listener.detach(),  # the store closes it
    )
    return store


def find_store(size: int, port: int) -> Store:
    """Connect to the rendezvous store from another rank."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store: Store = TCPStore("127.0.0.1", port, size, is_master=False, timeout=IDLE)
    return store


class Workers:
    """Ranks 1 to ``size - 1``, each a process of its own.

    Args:
        port: where rank 0's store listens, on loopback.
    """

    def __init__(self, size: int, port: int) -> None:
        self.size = size
        self._errors: list[IO[bytes]] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(1, size):
                self._start(rank, port)
        except BaseException:
            self.kill()
            raise

    def _start(self, rank: int, port: int) -> None:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in join)
        self._errors.append(errors)
        threads = max(1, (os.cpu_count() or 1) // self.size)
        environment = (
            {"OMP_NUM_THREADS": str(threads)}
            | dict(os.environ)
            | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(self.size),
                STORE_PORT: str(port),
            }
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "llamakit.llama.worker"],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env=environment,
            start_new_session=True,  # the terminal's Ctrl-C is for rank 0
        )
        self._processes.append(process)

    def wait_until_ready(self, store: Store) -> None:
        """Wait until every rank has reached the store.

        Raises:
            ParallelError: a rank ended instead, or took too long.
        """
        keys = [f"ready/{rank}" for rank in range(1, self.size)]
        deadline = time.monotonic() + START_TIMEOUT
        while not store.check(keys):
            if (message := self.exit_message(patience=0)) is not None:
                raise ParallelError(message)
            if time.monotonic() > deadline:
                raise ParallelError(f"the ranks did not start within {START_TIMEOUT} s")
            time.sleep(0.02)

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
