"""The server as a process: how it ends, several ranks, and what it needs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from server_kit import STORY, Running, process
from test_engine import LONG, begin, wait_until

FLOAT32 = ("--dtype", "float32", "--max-seq-len", "256", "--slots", "4")


def read_all(connection: Any) -> bytes:
    received = b""
    while piece := connection.recv(65536):
        received += piece
    connection.close()
    return received


def test_sigterm_finishes_what_runs_and_takes_nothing_new(isolated: dict[str, str]) -> None:
    with process(isolated, *FLOAT32) as running:
        assert running.process is not None
        whole = begin(running, {**LONG, "seed": 3})
        stream = begin(running, {**LONG, "seed": 3, "stream": True})
        wait_until(lambda: running.metric("running") == 2)

        running.process.send_signal(signal.SIGTERM)

        answer = json.loads(read_all(whole).partition(b"\r\n\r\n")[2])
        assert answer["usage"]["completion_tokens"] > 0
        assert answer["choices"][0]["finish_reason"] in ("length", "stop")
        assert b"data: [DONE]" in read_all(stream)
        assert running.process.wait(30) == 0
        with pytest.raises(ConnectionRefusedError):
            begin(running, LONG)
    assert not [line for line in running.lines if "Traceback" in line]


def test_what_outlasts_the_grace_is_ended_and_told(isolated: dict[str, str]) -> None:
    with process(isolated, *FLOAT32, "--grace", "0.2") as running:
        assert running.process is not None
        many = [begin(running, {**LONG, "n": 16, "stream": stream}) for stream in (False, True)]
        wait_until(lambda: running.metric("running") == 4)

        running.process.send_signal(signal.SIGTERM)

        whole, stream = map(read_all, many)
        assert whole.startswith(b"HTTP/1.1 503 ")
        assert b"the server is shutting down" in whole
        assert b"the server is shutting down" in stream
        assert b"[DONE]" not in stream
        assert running.process.wait(30) == 0


def test_two_ranks_serve_what_one_does(server: Running, isolated: dict[str, str]) -> None:
    body = {"prompt": STORY, "max_tokens": 30, "temperature": 0, "logprobs": 1, "n": 2}
    expected = server.post("/v1/completions", body).json()["choices"]

    with process(isolated, *FLOAT32, "--model-parallel-size", "2") as running:
        found = running.post("/v1/completions", body).json()["choices"]
        assert running.process is not None
        time.sleep(1.5)  # the other rank waits for rank 0 meanwhile
        again = running.post("/v1/completions", body).json()["choices"]
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(30) == 0

    for one, other in zip((*found, *again), (*expected, *expected), strict=True):
        assert one["text"] == other["text"]
        assert one["logprobs"]["token_logprobs"] == pytest.approx(
            other["logprobs"]["token_logprobs"], abs=1e-4
        )


def test_a_rank_that_dies_ends_the_server(isolated: dict[str, str]) -> None:
    with process(isolated, *FLOAT32, "--model-parallel-size", "2") as running:
        assert running.process is not None
        found = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(running.process.pid)],
            capture_output=True,
            text=True,
            check=True,
        )
        (worker,) = [line for line in found.stdout.splitlines() if "llamakit.worker" in line]
        subprocess.run(["kill", "-9", worker.split()[0]], check=True)

        answer = begin(running, LONG)

        assert b" 500 " in read_all(answer)[:20]
        assert running.process.wait(60) == 1
    assert any("rank 1" in line for line in running.lines)


def test_an_address_in_use_is_said_in_one_sentence(
    server: Running, run_llamakit: Callable[..., Any]
) -> None:
    result = run_llamakit("serve", "--port", str(server.address[1]))

    assert result.returncode == 2
    assert result.stderr.startswith("llamakit: error: cannot listen on 127.0.0.1 port ")
    assert len(result.stderr.splitlines()) == 1


def test_without_the_extra_one_sentence_says_what_to_install(isolated: dict[str, str]) -> None:
    program = (
        "import sys; sys.modules['starlette'] = None; from llamakit.cli import main; "
        "sys.exit(main(['serve']))"
    )

    result = subprocess.run(
        [sys.executable, "-c", program], env=isolated, capture_output=True, text=True, check=False
    )

    assert result.returncode == 2
    assert result.stderr == (
        "llamakit: error: llamakit serve needs the package starlette, which is not here: "
        "pip install 'llamakit[serve]'\n"
    )
