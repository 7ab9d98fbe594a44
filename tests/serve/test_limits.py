"""How much one request and all of them may take: length, time, connections."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator

import openai
import pytest
from server_kit import (
    LONG,
    QUESTION,
    STORY,
    Running,
    begin,
    head,
    read_all,
    say,
    thread,
    threaded,
    wait_until,
)

from llamakit.api import Llama
from llamakit.serve.server import Server, listen
from llamakit.serve.server_settings import Limits, ServeSettings


@pytest.fixture(scope="module")
def limited(llama: Llama) -> Iterator[Running]:
    """A server that takes short requests and gives short answers."""
    with thread(llama, limits=Limits(body=2000, new_tokens=20)) as running:
        yield running


@pytest.fixture(scope="module")
def impatient(llama: Llama) -> Iterator[Running]:
    """A server that waits for a request for one second only."""
    with thread(llama, limits=Limits(arrival=2.0)) as running:
        yield running


def test_a_body_that_is_too_long_is_not_read(limited: Running) -> None:
    announced = head("/v1/completions", Content_Length="99999999999")
    chunked = head("/v1/completions", Transfer_Encoding="chunked")
    chunked += b"".join(b"3e8\r\n" + b" " * 1000 + b"\r\n" for _ in range(3))

    for data in (announced, chunked):
        answer = say(limited.address, data)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"a request may have 2000 bytes" in answer


def test_a_body_that_does_not_arrive_is_not_waited_for(impatient: Running) -> None:
    answer = say(impatient.address, head("/v1/completions", Content_Length="100") + b"{")

    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_head_that_does_not_arrive_is_not_waited_for(impatient: Running) -> None:
    assert say(impatient.address, b"POST /v1/comp") == b""
    assert say(impatient.address, b"") == b""


def test_a_body_that_drips_is_not_waited_for_either(impatient: Running) -> None:
    with socket.create_connection(impatient.address, timeout=180) as connection:
        connection.sendall(head("/v1/completions", Content_Length="100000"))
        connection.settimeout(0.2)
        received = b""
        while not received:  # a byte each 0.2 s, until the server has had enough
            connection.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                received = connection.recv(100)

    assert received.startswith(b"HTTP/1.1 408 ")


def test_more_tokens_than_the_limit_are_refused_and_fewer_given(limited: Running) -> None:
    client = limited.openai()

    with pytest.raises(openai.BadRequestError, match="max_tokens is 21; this server gives 20"):
        client.completions.create(model="demo", prompt=STORY, max_tokens=21)
    unsaid = client.chat.completions.create(model="demo", messages=QUESTION, temperature=0)  # type: ignore[arg-type]
    assert unsaid.usage is not None
    assert unsaid.usage.completion_tokens <= 20


def test_the_first_step_of_a_server_may_take_longer_than_an_answer(llama: Llama) -> None:
    with thread(llama, limits=Limits(seconds=1e-9)) as running:
        answer = running.post("/v1/completions", {**LONG, "n": 8})

    assert answer.status_code == 504


def test_an_answer_that_takes_too_long_is_ended(llama: Llama) -> None:
    with thread(llama, limits=Limits(seconds=0.05)) as running:
        whole = running.post("/v1/completions", {**LONG, "n": 8})
        stream = running.post("/v1/completions", {**LONG, "n": 8, "stream": True})

        assert whole.status_code == 504
        assert whole.json()["error"]["code"] == "timeout"
        assert '"code": "timeout"' in stream.text or stream.status_code == 504
        assert running.metric("running") == 0


@pytest.fixture
def small_buffers(llama: Llama) -> Iterator[Running]:
    """A server whose streams may have 200 unread tokens, and few bytes in the system's buffers."""
    listener = listen("127.0.0.1", 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # accepted sockets have it too
    settings = ServeSettings(port=0, model_name="demo", grace=0.0, limits=Limits(unread=200))
    with threaded(Server(llama, settings, listener)) as running:
        yield running


MUCH = {**LONG, "n": 8, "logprobs": 5}
"""1600 tokens, of about a kilobyte each."""


def test_a_stream_that_its_client_does_not_read_is_ended_and_closed(
    small_buffers: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    unread = begin(small_buffers, {**MUCH, "stream": True}, receive_buffer=4096)

    wait_until(lambda: small_buffers.metric("gone_total") == 1)
    assert small_buffers.metric("running") == 0
    received = read_all(unread)

    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"[DONE]" not in received
    assert re.search(r"status=200 .* gone=True unread=\d+ ", capsys.readouterr().err)


def test_what_has_been_sent_is_not_counted_as_unread(llama: Llama) -> None:
    with thread(llama, limits=Limits(unread=20)) as running:
        stream = running.post("/v1/completions", {**LONG, "stream": True}).text

    assert stream.count("data: {") >= 200  # 50 KB: any buffers hold them, whoever is slow
    assert "data: [DONE]" in stream


def test_an_answer_in_one_piece_has_no_such_limit(llama: Llama) -> None:
    with thread(llama, limits=Limits(unread=1)) as running:
        answer = running.post("/v1/completions", LONG).json()

    assert answer["usage"]["completion_tokens"] == LONG["max_tokens"]
