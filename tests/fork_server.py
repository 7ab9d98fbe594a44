"""Processes in which torch is imported already: two seconds that a session pays once.

Run as a program it forks for each request on a Unix socket; the child has the request's words,
environment, folder and files, becomes ``python -m llamakit``, or ``python SCRIPT``, and ends as
that would.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

IMPORTED = ("click", "ml_dtypes", "platformdirs", "pluggy", "sentencepiece", "torch.distributed")
LOAD_TORCH = ("chat", "doctor", "generate", "moderate")
READ_AT_START = ("PYTHON", "OMP_", "MKL_", "LD_", "TORCH", "LC_", "LANG")
"""An interpreter or torch reads variables with these beginnings once, when it starts."""


def can_be_forked(words: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether this command loads torch, and asks for no variable that is read at the start."""
    names = env.keys() - {"PYTHONPATH"}  # is read again in the child
    loads_torch = bool(words) and words[0] in LOAD_TORCH and find_spec("torch") is not None
    return loads_torch and not any(name.startswith(READ_AT_START) for name in names)


@contextmanager
def fork_server(folder: Path) -> Iterator[Path]:
    """Start the server; give the address of its socket."""
    address = folder / "forks"
    env = {name: it for name, it in os.environ.items() if not name.startswith("LLAMAKIT_")}
    with subprocess.Popen(
        [sys.executable, __file__, address],
        env={**env, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"},  # several may compute at a time
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield address
        process.kill()


def run_forked(
    address: Path,
    words: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdin: str,
    timeout: float,
    script: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run ``llamakit`` or a script with these words, as ``subprocess.run`` would."""
    settings = {"env": dict(env), "cwd": os.fspath(cwd), "script": script}
    request = json.dumps({"words": words, **settings}) + "\n"
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.connect(os.fspath(address))
        read, write = os.pipe()
        socket.send_fds(connection, [b"\n"], [read, out.fileno(), err.fileno()])
        os.close(read)
        writer = threading.Thread(target=feed, args=(write, stdin.encode()))
        writer.start()
        connection.sendall(request.encode())
        status = wait(connection, words, timeout)
        writer.join()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(words, status, out.read().decode(), err.read().decode())


def feed(pipe: int, data: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(pipe, "wb") as file:  # it may not read its input
        file.write(data)


def wait(connection: socket.socket, words: Sequence[str], timeout: float) -> int:
    answers = connection.makefile("r")
    pid = int(answers.readline())
    connection.settimeout(timeout)
    try:
        return int(answers.readline())
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        raise subprocess.TimeoutExpired([*words], timeout) from None


def serve(address: str) -> dict[str, Any]:
    """Fork for each request; in the child, return the request."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a fork that answers
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        os.write(sys.stdout.fileno(), b"ready\n")
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    with connection, connection.makefile("rw") as lines:
        request: dict[str, Any] = json.loads(lines.readline())
        pid = os.fork()
        if pid == 0:
            return request | {"files": files}
        lines.write(f"{pid}\n")
        lines.flush()
        lines.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
    os._exit(0)


def become(request: Mapping[str, Any]) -> None:
    """Be ``python -m llamakit``, or the script, with what the request says."""
    for place, file in enumerate(request["files"]):
        os.dup2(file, place)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    added = os.environ.get("PYTHONPATH", "")
    sys.path[:1] = [request["cwd"], *filter(None, added.split(os.pathsep))]
    sys.argv[:] = [request["script"] or "llamakit", *request["words"]]
    if request["script"]:
        runpy.run_path(request["script"], run_name="__main__")
    else:
        runpy.run_module("llamakit", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # or each fork copies the pages of all that is imported
    become(serve(sys.argv[1]))
