"""Rendering in a process of its own, which a template cannot outgrow.

The process is started at the first rendering and stays. When it is stopped, or ends by itself, the
next rendering starts another. It knows no secrets: its environment is empty, and it inherits
nothing but two pipes.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import llamakit
from llamakit.plugins.prompt_formats.jinja.framing import NO_MEMORY, read_message, write_message

LARGEST_REPLY = 64 * 2**20
"""Bytes: four million characters with four bytes each, or what JSON makes of control characters."""
POLL_SECONDS = 0.05
KERNEL_BOUNDS_MEMORY = sys.platform == "linux"
"""Elsewhere RLIMIT_DATA does not count what malloc takes."""
_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""What Python may need to start."""
_PROGRAM = """
import sys
sys.path[:] = sys.argv[2:]
from llamakit.plugins.prompt_formats.jinja.render_process import main
main(sys.argv[1])
"""


@dataclass(frozen=True)
class Limits:
    """What one rendering may cost.

    Args:
        nbytes: of memory, the interpreter included.
        cpu_seconds: of computing.
        seconds: on the clock, for a process that neither computes nor answers.
        characters: of the rendered string.
    """

    nbytes: int = 256 * 2**20
    cpu_seconds: int = 5
    seconds: float = 60.0
    characters: int = 4_000_000


class RenderingError(Exception):
    """A template that is not rendered.

    Args:
        kind: ``syntax`` (it is no template), ``raised`` (it refuses the dialog), ``ambiguous`` (a
            message could be taken for the template's), ``failed``, or ``stopped`` (at a limit).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Renderer:
    """Renders chat templates in another process; for any number of threads, one at a time."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def render(self, request: Mapping[str, Any]) -> list[str]:
        """Render a dialog; return strings and names of special tokens in turn, a string first.

        Args:
            request: what ``render_process`` reads.
        Raises:
            RenderingError: the template is wrong, or went beyond a limit.
        """
        with self._lock:
            process = self._running()
            try:
                reply = self._exchange(process, request)
            except BaseException:
                self.close()  # its reply would be taken for the next one's
                raise
        if isinstance(reply, RenderingError):
            raise reply
        return reply

    @property
    def pid(self) -> int | None:
        """The process, if it has been started."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in _pipes(process):
                with contextlib.suppress(OSError):  # what was not written stays unwritten
                    pipe.close()
            process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        atexit.unregister(self.close)
        atexit.register(self.close)
        try:
            self._process = start_worker(self._limits)
        except OSError as error:
            message = f"the process that renders it cannot be started: {error}"
            raise RenderingError("stopped", message) from error
        return self._process

    def _exchange(
        self, process: subprocess.Popen[bytes], request: Mapping[str, Any]
    ) -> list[str] | RenderingError:
        requests, replies = _pipes(process)
        with Watch(process, self._limits) as watch:
            try:
                write_message(requests, request)
                return checked_reply(read_message(replies, LARGEST_REPLY), request["special"])
            except (OSError, EOFError, ValueError, RecursionError) as error:
                process.kill()
                message = watch.reason or _reason(process.wait(), self._limits)
                raise RenderingError("stopped", message) from error


class Watch:
    """Kills a process that takes too long, and one too large where the kernel does not.

    Args:
        bounds_memory: look at the memory, too.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        limits: Limits,
        bounds_memory: bool = not KERNEL_BOUNDS_MEMORY,
    ) -> None:
        self.reason = ""
        self._process = process
        self._limits = limits
        self._bounds_memory = bounds_memory
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._finished.set()
        self._thread.join()

    def _look(self) -> None:
        deadline = time.monotonic() + self._limits.seconds
        while not self._finished.wait(POLL_SECONDS):
            if time.monotonic() > deadline:
                self.reason = f"gave no answer within {self._limits.seconds:g} s"
            elif self._bounds_memory and resident_nbytes(self._process.pid) > self._limits.nbytes:
                self.reason = _out_of_memory(self._limits)
            else:
                continue
            self._process.kill()
            return


def shared_renderer() -> Renderer:
    """Return the renderer of this process; a forked one has its own."""
    return _SHARED.setdefault(os.getpid(), Renderer())


_SHARED: dict[int, Renderer] = {}


def start_worker(limits: Limits) -> subprocess.Popen[bytes]:
    """Start a process that renders.

    It has a session of its own, so that the terminal's Ctrl-C is not for it, and it ends when its
    standard input does. (Linux's PR_SET_PDEATHSIG would end it with the thread that started it.)
    """
    places = [str(Path(llamakit.__file__).parents[1]), *map(os.path.abspath, sys.path)]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PROGRAM, json.dumps(asdict(limits)), *places],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        start_new_session=True,
    )


def resident_nbytes(pid: int) -> int:
    """Return the memory of a process that is resident; 0 where there is no ``ps``."""
    try:
        done = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=False
        )
    except OSError:
        return 0
    return int(done.stdout or 0) * 1024


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def checked_reply(reply: Any, special: Collection[str]) -> list[str] | RenderingError:
    """Return a reply if it is one: the other process is not trusted.

    Args:
        special: the names of special tokens.
    Raises:
        ValueError: it is none.
    """
    if isinstance(reply, list) and all(isinstance(piece, str) for piece in reply):
        if set(reply[1::2]) <= set(special):
            return reply
    elif isinstance(reply, dict) and isinstance(reply.get("failure"), str):
        return RenderingError(reply["failure"], str(reply.get("message")))
    raise ValueError("not a reply")


def _reason(status: int, limits: Limits) -> str:
    if status == NO_MEMORY:
        return _out_of_memory(limits)
    if status == -getattr(signal, "SIGXCPU", 0):
        return f"computes for more than {limits.cpu_seconds} s"
    return f"ended the process that renders it (exit status {status})"


def _out_of_memory(limits: Limits) -> str:
    return f"needs more than {limits.nbytes // 2**20} MB of memory"
