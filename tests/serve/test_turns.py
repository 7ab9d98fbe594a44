"""Turns on the event loop: the order in which clients are handled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from server_kit import say, thread

from llamakit.api import Llama
from llamakit.serve.turns import BURST, SHARED, Charged, Turns


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run_turns(put: Callable[[Turns, list[str]], None]) -> list[str]:
    """Return the order in which the turns that a function asks for are taken."""

    async def run() -> list[str]:
        order: list[str] = []
        put(Turns(asyncio.get_running_loop(), clock := Clock(), clock), order)
        for _ in range(50):
            await asyncio.sleep(0)
        return order

    return asyncio.run(run())


def test_clients_take_turns_whatever_one_of_them_has_sent() -> None:
    def put(turns: Turns, order: list[str]) -> None:
        for _ in range(10):
            turns.put("greedy", lambda: order.append("greedy"))
        turns.put("modest", lambda: order.append("modest"))

    assert run_turns(put).index("modest") == 1


def test_between_two_turns_the_event_loop_looks_at_its_sockets() -> None:
    def put(turns: Turns, order: list[str]) -> None:
        loop = asyncio.get_running_loop()
        turns.put("greedy", lambda: order.append("first"))
        turns.put("greedy", lambda: order.append("second"))
        loop.call_soon(order.append, "other callback")

    assert run_turns(put) == ["first", "other callback", "second"]


def test_a_client_that_has_used_its_share_waits_while_another_has_a_request() -> None:
    async def run() -> None:
        clock = Clock()
        turns = Turns(asyncio.get_running_loop(), clock, clock)
        turns.began("modest")
        turns.charge("greedy", 2 * BURST)

        assert turns.delay("modest") == 0
        assert turns.delay("greedy") == 2 * BURST / SHARED
        clock.now = 2 * BURST / SHARED
        assert turns.delay("greedy") == 0
        turns.charge("greedy", BURST)
        turns.ended("modest")
        assert turns.delay("greedy") == 0  # alone

    asyncio.run(run())


def test_a_client_whose_turn_is_late_does_not_keep_the_others() -> None:
    def put(turns: Turns, order: list[str]) -> None:
        turns.began("modest")
        turns.charge("greedy", 2 * BURST)
        turns.put("greedy", lambda: order.append("greedy"))
        turns.put("modest", lambda: order.append("modest"))

    assert run_turns(put) == ["modest"]


def test_what_keeps_the_event_loop_is_charged_and_waiting_is_not() -> None:
    async def run() -> None:
        clock = Clock()
        turns = Turns(asyncio.get_running_loop(), clock, clock)
        turns.began("modest")

        async def work() -> str:
            clock.now += BURST
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.sleep(60), 0.001)
            clock.now += BURST
            return "done"

        assert await Charged(turns, "greedy", work()) == "done"
        assert turns.delay("greedy") > 0

    asyncio.run(run())


def test_a_client_of_two_may_compute_for_an_eighth_of_the_time() -> None:
    async def run() -> None:
        clock = Clock()
        turns = Turns(asyncio.get_running_loop(), clock, clock)
        turns.began("greedy")
        for _ in range(100):
            turns.charge("modest", SHARED / 2 * 0.02)
            clock.now += 0.02

            assert turns.delay("modest") == 0

    asyncio.run(run())


def test_nobody_is_charged_for_waiting_for_a_core_or_for_pythons_lock() -> None:
    async def run() -> None:
        clock = Clock()
        turns = Turns(asyncio.get_running_loop(), clock, Clock())
        turns.began("greedy")

        async def work() -> None:
            clock.now += 60

        await Charged(turns, "modest", work())

        assert turns.delay("modest") == 0

    asyncio.run(run())


def test_pipelined_requests_are_answered_in_order(llama: Llama) -> None:
    paths = ["/health", "/v1/models", "/nothing", "/health"] * 50
    requests = b"".join(f"GET {it} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for it in paths)
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    with thread(llama) as running:
        answers = say(running.address, requests + last).split(b"HTTP/1.1 ")[1:]

    assert [answer[:3] for answer in answers] == [b"200", b"200", b"404", b"200"] * 50 + [b"200"]


def test_a_body_in_chunks_of_one_byte_is_read(llama: Llama) -> None:
    body = b'{"prompt": "Once upon a time", "max_tokens": 1}'
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body + b" " * 50_000)
    start = (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )

    with thread(llama) as running:
        answer = say(running.address, start + pieces + b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")
