"""The engine behind the server: crowds, queues, and clients that go away."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from server_kit import LONG, QUESTION, STORY, Running, begin, held, thread, wait_until

from llamakit.api import Llama
from llamakit.serve.server_settings import Limits


@pytest.fixture
def small(llama: Llama) -> Iterator[Running]:
    """A server whose queue is soon full."""
    with thread(llama, limits=Limits(waiting=4, choices=4)) as running:
        yield running


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
def test_a_client_that_goes_away_frees_its_slot_at_the_next_step(
    small: Running, llama: Llama, stream: bool
) -> None:
    with held(llama) as step:
        asked = {**LONG, "stream": stream, "processors": [step.name]}
        gone = [begin(small, asked) for _ in range(2)]
        wait_until(lambda: small.metric("running") == 2)
        step.wait()

        for connection in gone:
            connection.close()
        wait_until(lambda: small.metric("gone_total") == 2)
        step.let_go()

        answer = small.post("/v1/completions", {"prompt": STORY, "max_tokens": 2})
        assert answer.status_code == 200
        assert small.metric("running") == 0
        assert step.calls <= 2  # once for each, in the step that was under way


def test_a_client_that_goes_away_before_its_turn_costs_no_step(small: Running) -> None:
    in_another_process = {"prompt": STORY, "max_tokens": 2, "user": "a" * 10_000}

    begin(small, in_another_process).close()
    wait_until(lambda: small.metric("gone_total") == 1)

    assert small.metric("prompt_tokens_total") == 0


def test_a_client_that_waits_and_goes_away_leaves_the_queue(small: Running, llama: Llama) -> None:
    with held(llama) as step:
        busy = begin(small, {**LONG, "n": 4, "processors": [step.name]})
        wait_until(lambda: small.metric("running") == 4)
        waiting = begin(small, LONG)
        wait_until(lambda: small.metric("waiting") == 1)

        waiting.close()

        wait_until(lambda: small.metric("waiting") == 0)
        assert small.metric("running") == 4
        busy.close()


def test_a_full_queue_is_answered_429_with_a_time_to_come_again(
    small: Running, llama: Llama
) -> None:
    with held(llama) as step:
        asked = {**LONG, "processors": [step.name]}
        busy = [begin(small, {**asked, "n": 4})]
        wait_until(lambda: small.metric("running") == 4)
        busy.append(begin(small, {**asked, "n": 3}))
        wait_until(lambda: small.metric("waiting") == 3)

        refused = small.post("/v1/completions", {**LONG, "n": 2})

        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["code"] == "queue_full"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        for connection in busy:
            connection.close()
    wait_until(lambda: small.metric("running") == 0)
    assert small.post("/v1/completions", {"prompt": STORY, "max_tokens": 2}).status_code == 200


KEYS = ("greedy-client-key", "modest-client-key")


class Crowd:
    """Two clients with a key each, at a server that holds its first step."""

    def __init__(self, running: Running, processor: str) -> None:
        self._running, self._processor = running, processor
        self.ended: list[str] = []

    def ask(self, key: str, n: int) -> int:
        body = {**LONG, "n": n, "max_tokens": 10, "processors": [self._processor]}
        headers = {"Authorization": f"Bearer {key}"}
        status = self._running.post("/v1/completions", body, headers=headers).status_code
        self.ended.append(key)
        return status

    def inside(self) -> float:
        headers = {"Authorization": f"Bearer {KEYS[1]}"}
        return sum(
            float(line.split()[1])
            for line in self._running.get("/metrics", headers=headers).text.splitlines()
            if line.startswith(("llamakit_running ", "llamakit_waiting "))
        )


def test_the_last_part_of_the_queue_is_for_newcomers(llama: Llama) -> None:
    limits = Limits(waiting=4, choices=16)
    with (
        held(llama) as step,
        thread(llama, keys=KEYS, limits=limits) as running,
        ThreadPoolExecutor(8) as threads,
    ):
        crowd = Crowd(running, step.name)
        first = threads.submit(crowd.ask, KEYS[0], 7)
        wait_until(lambda: crowd.inside() == 7)
        more = crowd.ask(KEYS[0], 1)
        modest = threads.submit(crowd.ask, KEYS[1], 1)
        wait_until(lambda: crowd.inside() == 8)
        step.let_go()

        assert (more, modest.result(), first.result()) == (429, 200, 200)


def test_one_with_little_is_not_held_up_by_one_with_much(llama: Llama) -> None:
    limits = Limits(waiting=64, choices=40)
    with (
        held(llama) as step,
        thread(llama, keys=KEYS, limits=limits) as running,
        ThreadPoolExecutor(2) as threads,
    ):
        crowd = Crowd(running, step.name)
        much = threads.submit(crowd.ask, KEYS[0], 40)
        wait_until(lambda: crowd.inside() == 40)
        little = threads.submit(crowd.ask, KEYS[1], 1)
        wait_until(lambda: crowd.inside() == 41)
        step.let_go()

        assert (much.result(), little.result()) == (200, 200)
        assert crowd.ended == [KEYS[1], KEYS[0]]


def test_a_request_whose_sampling_fails_ends_alone(small: Running, llama: Llama) -> None:
    from llamakit.plugin_manager.registry import Entry, Source

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


def test_a_slow_reader_holds_up_nobody(small: Running, llama: Llama) -> None:
    with held(llama) as step:
        asked = {**LONG, "stream": True, "logprobs": 20, "n": 4, "processors": [step.name]}
        reading = begin(small, asked)
        wait_until(lambda: small.metric("running") == 4)
        step.let_go()
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
        wait_until(lambda: running.metric("new_tokens_total") == 8)  # counted behind the answer

        text = running.get("/metrics").text
        assert running.metric("slots") == 4
        assert 'llamakit_requests_total{route="/v1/completions",status="200"} 1.0' in text
        assert 'llamakit_requests_total{route="other",status="404"} 1.0' in text
        assert "llamakit_request_seconds_count 2.0" in text
        assert "llamakit_first_token_seconds_count 2.0" in text
        assert "where" not in text
