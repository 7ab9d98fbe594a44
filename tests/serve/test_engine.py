"""The engine behind the server: crowds, queues, and clients that go away."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from server_kit import QUESTION, STORY, Running, head, thread

from llamakit.api import Llama
from llamakit.serve.settings import Limits

LONG = {"prompt": STORY, "max_tokens": 200, "sampler": "draw", "stop": None}


@pytest.fixture
def small(llama: Llama) -> Iterator[Running]:
    """A server whose queue is soon full."""
    with thread(llama, limits=Limits(waiting=4, choices=4)) as running:
        yield running


def begin(running: Running, body: dict[str, Any], path: str = "/v1/completions") -> socket.socket:
    """Ask and do not read the answer."""
    data = json.dumps(body).encode()
    connection = socket.create_connection(running.address, timeout=30)
    connection.sendall(head(path, Content_Length=str(len(data))) + data)
    return connection


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_request_has_the_same_tokens_alone_and_in_a_crowd(server: Running) -> None:
    def body(number: int) -> dict[str, Any]:
        return {
            "prompt": STORY if number % 2 else "How do I " + "reshard " * number,
            "max_tokens": 10 + 3 * number,
            "temperature": 0.0 if number % 3 == 0 else 0.9,
            "seed": number,
            "logprobs": 1,
            "processors": ["min-p:p=0.05"] if number % 4 == 0 else [],
            **({"sampler": "draw"} if number % 4 == 0 and number % 3 else {}),
        }

    def ask(number: int) -> Any:
        return server.post("/v1/completions", body(number)).json()["choices"][0]

    alone = [ask(number) for number in range(12)]
    with ThreadPoolExecutor(12) as threads:
        crowd = list(threads.map(ask, range(12)))

    for one, other in zip(alone, crowd, strict=True):
        assert one["text"] == other["text"]
        assert one["logprobs"]["tokens"] == other["logprobs"]["tokens"]
        assert one["logprobs"]["token_logprobs"] == pytest.approx(
            other["logprobs"]["token_logprobs"], abs=1e-4
        )


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_slot(small: Running, stream: bool) -> None:
    gone = [begin(small, {**LONG, "stream": stream}) for _ in range(4)]
    wait_until(lambda: small.metric("running") == 4)

    for connection in gone:
        connection.close()

    wait_until(lambda: small.metric("running") == 0)
    assert small.metric("gone_total") == 4
    assert small.metric("new_tokens_total") < 4 * 200
    assert small.post("/v1/completions", {"prompt": STORY, "max_tokens": 2}).status_code == 200


def test_a_client_that_waits_and_goes_away_leaves_the_queue(small: Running) -> None:
    busy = [begin(small, LONG) for _ in range(4)]
    wait_until(lambda: small.metric("running") == 4)
    waiting = begin(small, LONG)
    wait_until(lambda: small.metric("waiting") == 1)

    waiting.close()

    wait_until(lambda: small.metric("waiting") == 0)
    for connection in busy:
        connection.close()


def test_a_full_queue_is_answered_429_with_a_time_to_come_again(small: Running) -> None:
    busy = [begin(small, {**LONG, "n": 4}) for _ in range(1)]
    wait_until(lambda: small.metric("running") == 4)
    waiting = [begin(small, {**LONG, "n": 3})]
    wait_until(lambda: small.metric("waiting") == 3)

    refused = small.post("/v1/completions", {**LONG, "n": 2})

    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["error"]["code"] == "queue_full"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    for connection in (*busy, *waiting):
        connection.close()
    wait_until(lambda: small.metric("running") == 0)
    assert small.post("/v1/completions", {"prompt": STORY, "max_tokens": 2}).status_code == 200


def test_the_last_part_of_the_queue_is_for_newcomers(llama: Llama) -> None:
    keys = ("greedy-client-key", "modest-client-key")
    go_on = threading.Event()
    add_held_processor(llama, go_on)
    with (
        thread(llama, keys=keys, limits=Limits(waiting=4, choices=16)) as running,
        ThreadPoolExecutor(8) as threads,
    ):

        def ask(key: str, n: int) -> int:
            headers = {"Authorization": f"Bearer {key}"}
            body = {**LONG, "n": n, "max_tokens": 10, "processors": ["held"]}
            return running.post("/v1/completions", body, headers=headers).status_code

        def inside() -> float:
            text = running.get("/metrics", headers={"Authorization": f"Bearer {keys[1]}"}).text
            return sum(
                float(line.split()[1])
                for line in text.splitlines()
                if line.startswith(("llamakit_running ", "llamakit_waiting "))
            )

        try:
            first = threads.submit(ask, keys[0], 7)
            wait_until(lambda: inside() == 7)
            more = ask(keys[0], 1)
            modest = threads.submit(ask, keys[1], 1)
            wait_until(lambda: inside() == 8)
        finally:
            go_on.set()

        assert (more, modest.result(), first.result()) == (429, 200, 200)


def add_held_processor(llama: Llama, go_on: threading.Event) -> None:
    """Register a processor that waits until the test lets it go on."""
    from llamakit.registry import Entry, Source

    def held() -> Any:
        def process(logits: Any, rows: Any) -> Any:
            assert go_on.wait(60)
            return logits

        return process

    source = Source("held", "llamakit-held", "1", builtin=False)
    llama.toolkit.processors.add(Entry("processor", "held", held, "", source))


def test_one_with_little_is_not_held_up_by_one_with_much(llama: Llama) -> None:
    keys = ("greedy-client-key", "modest-client-key")
    ended: list[str] = []
    with thread(llama, keys=keys, limits=Limits(waiting=64, choices=40)) as running:

        def ask(name: str, key: str, n: int) -> None:
            headers = {"Authorization": f"Bearer {key}"}
            running.post("/v1/completions", {**LONG, "n": n, "max_tokens": 40}, headers=headers)
            ended.append(name)

        much = threading.Thread(target=ask, args=("much", keys[0], 40))
        much.start()
        time.sleep(0.2)
        ask("little", keys[1], 1)
        much.join()

    assert ended == ["little", "much"]


def test_a_request_whose_sampling_fails_ends_alone(small: Running, llama: Llama) -> None:
    from llamakit.registry import Entry, Source

    def failing() -> Any:
        def process(logits: Any, rows: Any) -> Any:
            raise ArithmeticError("a secret of the prompt's")

        return process

    source = Source("failing", "llamakit-failing", "1", builtin=False)
    entry = Entry("processor", "failing-one", failing, "", source)
    llama.toolkit.processors.add(entry)
    with ThreadPoolExecutor(2) as threads:
        good = threads.submit(
            small.post, "/v1/completions", {"prompt": STORY, "max_tokens": 60, "temperature": 0}
        )
        bad = small.post("/v1/completions", {"prompt": STORY, "processors": ["failing-one"]})

        assert bad.status_code == 500
        assert "llamakit-failing" in bad.json()["error"]["message"]
        assert good.result().status_code == 200


def test_a_slow_reader_holds_up_nobody(small: Running) -> None:
    reading = begin(small, {**LONG, "stream": True, "logprobs": 20, "n": 4})
    reading.settimeout(30)

    wait_until(lambda: small.metric("running") > 0)
    wait_until(lambda: small.metric("running") == 0)
    answer = small.post("/v1/completions", {"prompt": STORY, "max_tokens": 3})

    assert answer.status_code == 200
    received = b""
    while b"[DONE]" not in received:
        piece = reading.recv(65536)
        assert piece
        received += piece
    reading.close()


def test_metrics_count_what_was_done(llama: Llama) -> None:
    with thread(llama) as running:
        running.post("/v1/completions", {"prompt": STORY, "max_tokens": 5, "temperature": 0})
        running.post("/v1/chat/completions", {"messages": QUESTION, "max_tokens": 3})
        running.get("/some/where")

        text = running.get("/metrics").text
        assert running.metric("new_tokens_total") == 8
        assert running.metric("slots") == 4
        assert 'llamakit_requests_total{route="/v1/completions",status="200"} 1.0' in text
        assert 'llamakit_requests_total{route="other",status="404"} 1.0' in text
        assert "llamakit_request_seconds_count 2.0" in text
        assert "llamakit_first_token_seconds_count 2.0" in text
        assert "where" not in text
