"""The server as a process: how it ends, several ranks, and what it needs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from server_kit import LONG, STORY, Running, begin, process, read_all, thread, threaded, wait_until

from llamakit._distribution import install_command
from llamakit.api import Llama
from llamakit.errors import UsageError
from llamakit.serve.server import SIGNAL_WINDOW, SWITCH_SECONDS, Server, listen
from llamakit.serve.server_settings import ServeSettings

FLOAT32 = ("--dtype", "float32", "--max-seq-len", "256", "--slots", "4")


def test_sigterm_finishes_what_runs_and_takes_nothing_new(
    isolated: dict[str, str], forked_python: Path
) -> None:
    launcher = [str(forked_python)]
    with process(isolated, *FLOAT32, "--grace", "300", launcher=launcher) as running:
        assert running.process is not None
        whole = begin(running, {**LONG, "n": 4})
        stream = begin(running, {**LONG, "n": 8, "stream": True})
        wait_until(lambda: running.metric("waiting") > 0)

        running.process.send_signal(signal.SIGTERM)

        answer = json.loads(read_all(whole).partition(b"\r\n\r\n")[2])
        assert answer["usage"]["completion_tokens"] == 4 * 200
        assert b"data: [DONE]" in read_all(stream)
        assert running.process.wait(180) == 0
        with pytest.raises(ConnectionRefusedError):
            begin(running, LONG)
    assert not [line for line in running.lines if "trace=" in line or "Traceback" in line]


def test_while_a_server_runs_threads_take_pythons_lock_in_short_turns(llama: Llama) -> None:
    before = sys.getswitchinterval()

    with thread(llama):
        assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)

    assert sys.getswitchinterval() == before


def test_a_second_signal_ends_at_once_what_the_first_lets_released(
    isolated: dict[str, str], forked_python: Path
) -> None:
    words = ("--dtype", "float32", "--slots", "2", "--grace", "300")
    with process(isolated, *words, launcher=[str(forked_python)]) as running:
        assert running.process is not None
        stream = begin(running, {**LONG, "n": 16, "max_tokens": 450, "stream": True})
        wait_until(lambda: running.metric("waiting") > 0)
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(2 * SIGNAL_WINDOW)

        running.process.send_signal(signal.SIGINT)

        answer = read_all(stream)
        status = running.process.wait(180)
    assert b"the server is shutting down" in answer
    assert b"[DONE]" not in answer
    assert status == 0


def test_what_outlasts_the_grace_is_ended_with_an_error(llama: Llama) -> None:
    server = Server(llama, ServeSettings(port=0, grace=0.2), listen("127.0.0.1", 0))
    with threaded(server) as running:
        many = [begin(running, {**LONG, "n": 8, "stream": stream}) for stream in (False, True)]
        wait_until(lambda: running.metric("running") == 4)

        server.end()

        whole, stream = map(read_all, many)
    assert whole.startswith(b"HTTP/1.1 503 ")
    assert b"the server is shutting down" in whole
    assert b"the server is shutting down" in stream
    assert b"[DONE]" not in stream


def test_two_ranks_serve_what_one_does_and_end_when_one_dies(
    server: Running, isolated: dict[str, str]
) -> None:
    body = {"prompt": STORY, "max_tokens": 30, "temperature": 0, "logprobs": 1, "n": 2}
    expected = server.post("/v1/completions", body).json()["choices"]

    with process(isolated, *FLOAT32, "--model-parallel-size", "2") as running:
        assert running.process is not None
        found = running.post("/v1/completions", body).json()["choices"]
        found += running.post("/v1/completions", body).json()["choices"]
        kill_worker(running.process.pid)
        answer = read_all(begin(running, LONG))
        status = running.process.wait(180)

    for one, other in zip(found, (*expected, *expected), strict=True):
        assert one["text"] == other["text"]
        assert one["logprobs"]["token_logprobs"] == pytest.approx(
            other["logprobs"]["token_logprobs"], abs=1e-4
        )
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert status == 1
    assert any("rank 1" in line for line in running.lines)
    assert not [line for line in running.lines if "trace=" in line or "Traceback" in line]


def test_under_torchrun_rank_0_serves_and_sigterm_finishes_what_runs(
    server: Running, isolated: dict[str, str], forked_python: Path
) -> None:
    body = {"prompt": STORY, "max_tokens": 30, "temperature": 0}
    expected = server.post("/v1/completions", body).json()["choices"]
    torchrun = (f"{forked_python}", "-m", "torch.distributed.run", "--nproc_per_node", "2")
    env = {**isolated, "PYTHON_EXEC": str(forked_python)}

    words = (*FLOAT32, "--draft", "prompt-lookup")

    with process(env, *words, launcher=(*torchrun, "--standalone")) as running:
        assert running.process is not None
        found = running.post("/v1/completions", body).json()["choices"]
        whole = begin(running, {**LONG, "n": 4, "max_tokens": 120})
        wait_until(lambda: running.metric("running") == 4)
        running.process.terminate()
        answer = json.loads(read_all(whole).partition(b"\r\n\r\n")[2])
        running.process.wait(180)

    assert found == expected
    assert answer["usage"]["completion_tokens"] == 4 * 120
    assert not [line for line in running.lines if "lost another rank" in line]


def kill_worker(pid: int) -> None:
    """Kill the other rank of a server."""
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    (worker,) = [line for line in found.stdout.splitlines() if "llamakit.llama.worker" in line]
    os.kill(int(worker.split()[0]), signal.SIGKILL)


def test_an_address_in_use_is_said_in_one_sentence(server: Running) -> None:
    host, port = server.address

    with pytest.raises(UsageError, match=f"cannot listen on {host} port {port}: .*--port"):
        listen(host, port)


def test_without_the_extra_one_sentence_says_what_to_install(isolated: dict[str, str]) -> None:
    program = (
        "import sys; sys.modules['starlette'] = None; from llamakit.cli.main import main; "
        "sys.exit(main(['serve']))"
    )

    result = subprocess.run(
        [sys.executable, "-c", program], env=isolated, capture_output=True, text=True, check=False
    )

    assert result.returncode == 2
    assert result.stderr == (
        "llamakit: error: llamakit serve needs the package starlette, which is not here: "
        f"{install_command('serve')}\n"
    )


def test_accepted_connections_send_small_packets_at_once(llama: Llama) -> None:
    """Without TCP_NODELAY every answer on a kept-alive connection waits 40 ms for the client."""
    with (
        threaded(Server(llama, ServeSettings(), listen("127.0.0.1", 0))) as running,
        socket.create_connection(running.address) as client,
    ):
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.recv(1)

        option = option_of_connection(client.getsockname(), socket.TCP_NODELAY)

    assert option == 1


def option_of_connection(peer: tuple[str, int], option: int) -> int:
    """Return a TCP option of this process's end of the connection whose other end is ``peer``."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with (
            contextlib.suppress(OSError),  # it is closed, no socket, or not connected
            socket.socket(fileno=os.dup(int(descriptor.name))) as own,
        ):
            if own.getpeername() == peer:
                return own.getsockopt(socket.IPPROTO_TCP, option)
    raise AssertionError(f"no connection from {peer}")
