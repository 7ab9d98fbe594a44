"""Processes in which torch is imported already: two seconds that a session pays once.

Run as a program it forks for each request on a Unix socket; the child has the request's words,
environment, folder and files, becomes ``python WORDS``, and ends as that would.
``forked_python.py`` is such a Python for whatever starts one itself: a shell, or torchrun.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import site
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

IMPORTED = (
    "click",
    "ml_dtypes",
    "platformdirs",
    "pluggy",
    "sentencepiece",
    "torch.distributed.run",
)
LOAD_TORCH = ("chat", "doctor", "generate", "moderate")
READ_AT_START = ("PYTHON", "OMP_", "MKL_", "LD_", "TORCH", "LC_", "LANG")
"""An interpreter or torch reads variables with these beginnings once, when it starts."""
CLIENT = Path(__file__).with_name("forked_python.py")


def can_be_forked(words: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether this command loads torch, and asks for no variable that is read at the start."""
    names = env.keys() - {"PYTHONPATH"}  # is read again in the child
    command = words[0] if words else ""
    loads_torch = command in LOAD_TORCH or (command == "plugins" and "--check" in words)
    if not loads_torch or find_spec("torch") is None:
        return False
    return not any(name.startswith(READ_AT_START) for name in names)


@contextmanager
def fork_server(folder: Path, python: str | Path = sys.executable) -> Iterator[Path]:
    """Start the server with that interpreter; give the address of its socket."""
    address = folder / "forks"
    env = {name: it for name, it in os.environ.items() if not name.startswith("LLAMAKIT_")}
    with subprocess.Popen(
        [python, __file__, address],
        env={**env, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"},  # several may compute at a time
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield address
        process.kill()


def write_program(path: Path, address: Path, *words: str) -> Path:
    """Write a program that is ``python WORDS``, forked by the server at that address."""
    command = [sys.executable, "-I", "-S", CLIENT, address, *words]
    path.write_text(f'#!/bin/sh\nexec {" ".join(map(str, command))} "$@"\n')
    path.chmod(0o755)
    return path


def run_forked(
    address: Path,
    words: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdin: str,
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """Run Python with these words, as ``subprocess.run`` would."""
    request = json.dumps({"words": words, "env": dict(env), "cwd": os.fspath(cwd)}) + "\n"
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
    answers.readline()  # its process ID
    connection.settimeout(timeout)
    try:
        return int(answers.readline())
    except TimeoutError:  # whoever hangs up has the process killed
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
    with connection, connection.makefile("r") as lines:
        request: dict[str, Any] = json.loads(lines.readline())
        pid = os.fork()
        if pid == 0:
            return request | {"files": files}
        for file in files:  # the child's alone, or its readers never see their end
            os.close(file)
        child = os.pidfd_open(pid)  # its number may be another's once it has ended
        threading.Thread(target=kill_when_left, args=(connection, child), daemon=True).start()
        with suppress(ConnectionError):
            connection.sendall(f"{pid}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(ConnectionError):
            connection.sendall(f"{status}\n".encode())
    os._exit(0)


def kill_when_left(connection: socket.socket, child: int) -> None:
    """Kill the child, a pidfd, when whoever asked for it hangs up."""
    with suppress(ConnectionError):
        connection.recv(1)
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(child, signal.SIGKILL)


def become(request: Mapping[str, Any]) -> None:
    """Be ``python`` with the words, environment, folder and files of the request."""
    for place, file in enumerate(request["files"]):
        os.dup2(file, place)
        os.close(file)
    # The stream of a server that writes to a file, as pytest's is, would seek; this may be a pipe.
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    added = os.environ.get("PYTHONPATH", "")
    sys.path[:1] = ["", *filter(None, added.split(os.pathsep))]
    for folder in site.getsitepackages():  # pip may have installed something since the start
        site.addsitedir(folder)
    importlib.invalidate_caches()
    sys.executable = os.environ.get("PYTHON_EXEC", sys.executable)  # as torchrun reads it
    run(request["words"])


def run(words: Sequence[str]) -> None:
    """Run a module, a program given in a word or on standard input, or a script."""
    words = [*words[words[:1] == ["-u"] :]]  # what is written to files is flushed at the end
    main = {"__name__": "__main__"}
    if words[0] == "-m":
        sys.argv[:] = words[1:]
        sys.path[0] = os.fspath(Path.cwd())
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] in ("-c", "-"):
        text = words.pop(1) if words[0] == "-c" else sys.stdin.read()
        sys.argv[:] = words
        exec(compile(text, "<string>", "exec"), main)
    else:
        sys.argv[:] = words
        sys.path[0] = os.fspath(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # or each fork copies the pages of all that is imported
    become(serve(sys.argv[1]))
