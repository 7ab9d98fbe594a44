"""Connections beyond the limit: who is closed, who is refused."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from server_kit import LONG, Running, begin, head, held, read_all, say, thread, wait_until

from llamakit.api import Llama
from llamakit.serve.client_identity import client_of_address
from llamakit.serve.connections import Connections
from llamakit.serve.server_settings import Limits

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture
def narrow(llama: Llama) -> Iterator[Running]:
    """A server that has two connections."""
    with thread(llama, limits=Limits(connections=2)) as running:
        yield running


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        HEALTH[:20],
        head("/v1/completions", Content_Length="100000") + b"{",
        HEALTH.replace(b"Connection: close\r\n", b""),
    ],
    ids=["silent", "half a head", "half a body", "kept alive"],
)
def test_connections_that_wait_for_their_client_make_room_for_others(
    narrow: Running, begun: bytes
) -> None:
    with contextlib.ExitStack() as opened:
        waiting = [
            opened.enter_context(socket.create_connection(narrow.address, timeout=60))
            for _ in range(8)
        ]
        for connection in waiting:
            with contextlib.suppress(OSError):  # closed already
                connection.sendall(begun)

        assert say(narrow.address, HEALTH).startswith(b"HTTP/1.1 200 ")

        with contextlib.suppress(ConnectionResetError):
            read_all(waiting[0])  # ends: the oldest one was closed


def test_connections_beyond_the_limit_are_refused_if_all_others_are_at_work(
    narrow: Running, llama: Llama
) -> None:
    with held(llama) as step:
        busy = [begin(narrow, {**LONG, "processors": [step.name]}) for _ in range(2)]
        step.wait()

        refused = narrow.get("/health")

        for connection in busy:
            connection.close()
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "too_many_connections"
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["connection"] == "close"
    wait_until(lambda: say(narrow.address, HEALTH).startswith(b"HTTP/1.1 200 "))


@dataclass(eq=False)
class Made:
    """A connection of which only the table knows."""

    client_id: str
    is_waiting: bool = True
    is_closed: bool = False

    def give_up(self) -> None:
        self.is_closed = True


def test_the_client_with_the_most_connections_gives_up_its_oldest_idle_one() -> None:
    table = Connections(4)
    modest = Made("modest")
    greedy = [Made("greedy", is_waiting=number > 0) for number in range(3)]
    for connection in (modest, *greedy):
        table.add(connection)

    assert table.add(Made("new"))

    assert [it.is_closed for it in (modest, *greedy)] == [False, False, True, False]
    assert len(table) == 4


def test_connections_at_work_are_not_closed_and_twice_the_limit_is_the_end() -> None:
    table = Connections(2)
    working = [Made("greedy", is_waiting=False) for _ in range(4)]

    assert all(table.add(connection) for connection in working)

    assert not table.add(Made("new"))
    assert not any(it.is_closed for it in working)


def test_one_client_at_work_leaves_a_part_of_the_connections_to_others() -> None:
    table = Connections(8)
    working = [Made("greedy", is_waiting=False) for _ in range(7)]
    other = Made("other", is_waiting=False)
    for connection in (*working, other):
        table.add(connection)

    assert table.is_full(working[0])
    assert not table.is_full(other)
    table.discard(working[6])
    assert not table.is_full(working[0])


def test_a_client_is_its_address_and_for_ipv6_its_network() -> None:
    assert client_of_address("192.0.2.7") == "192.0.2.7"
    assert client_of_address("::ffff:192.0.2.7") == "192.0.2.7"
    assert client_of_address("2001:db8:1:2::3") == client_of_address("2001:db8:1:2:ffff::4")
    assert client_of_address("2001:db8:1:2::3") != client_of_address("2001:db8:1:3::3")
    assert client_of_address("fe80::1%eth0") == client_of_address("fe80::2")
    assert client_of_address("") == ""


def test_beyond_the_limit_each_client_has_its_oldest_connections_served() -> None:
    table = Connections(8)
    modest = Made("modest", is_waiting=False)
    greedy = [Made("greedy", is_waiting=False) for _ in range(12)]
    for connection in (*greedy, modest):
        table.add(connection)

    assert not table.is_full(modest)
    assert table.is_full(greedy[7])


def test_no_client_loses_a_connection_to_one_that_has_more() -> None:
    table = Connections(4)
    modest = Made("modest")
    for connection in (modest, *(Made("greedy", is_waiting=False) for _ in range(4))):
        table.add(connection)

    assert not modest.is_closed
