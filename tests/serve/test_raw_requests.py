"""No bytes that a client sends end the server, make it grow, or are answered by a 500."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from raw_requests import answer, answers, case
from server_kit import STORY, Running, wait_until
from test_memory import resident_nbytes

MARGIN = 60 << 20


def check(server: Running, numbers: range) -> None:
    """Send the cases, eight at a time; the server has to be as it was before."""
    assert server.process is not None
    pid, asked = server.process.pid, {"prompt": STORY, "max_tokens": 5, "temperature": 0}
    right = server.post("/v1/completions", asked).json()["choices"]
    server.post("/v1/completions", {"prompt": "a" * 9000})  # starts the process for large bodies
    before = resident_nbytes(pid)

    with ThreadPoolExecutor(8) as threads:
        received = list(threads.map(lambda it: answer(server.address, case(it)), numbers))

    for number, data in zip(numbers, received, strict=True):
        check_answers(number, data)
    assert server.process.poll() is None
    assert not [line for line in server.lines if "Traceback" in line]
    assert server.post("/v1/completions", asked).json()["choices"] == right
    wait_until(lambda: resident_nbytes(pid) < before + MARGIN)
    wait_until(lambda: server.metric("running") == 0)


def check_answers(number: int, received: bytes) -> None:
    """Each answer is one that was asked for, or says in a sentence what is wrong."""
    for status, kind, body in answers(received):
        about = f"case {number}: {case(number)!r:.300}: {status} {body!r:.300}"
        assert 200 <= status < 500 or status == 503, about
        if status < 400 or not body:
            continue
        said = body.decode()
        if kind.startswith("application/json"):
            said = json.loads(said)["error"]["message"]
        assert said.strip(), about
        assert "Traceback" not in said, about
        assert said.isprintable(), about
        assert len(said) < 2000, about


def test_requests_that_no_client_means_are_answered_or_closed(server: Running) -> None:
    check(server, range(200))


@pytest.mark.soak
def test_many_requests_that_no_client_means(server: Running) -> None:
    check(server, range(200, 20_000))
