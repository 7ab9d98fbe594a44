"""Accepting connections: who is served beside a client that connects again and again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import cast

from llamakit.serve.acceptor import AT_ONCE, Acceptor
from llamakit.serve.server import listen
from llamakit.serve.turns import Turns

GREEDY, MODEST = "127.0.0.2", "127.0.0.1"
FLOOD = 200


class Opened(asyncio.Protocol):
    """A connection that notes whose it is when it is opened."""

    def __init__(self, order: list[str]) -> None:
        self._order = order

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._order.append(transport.get_extra_info("peername")[0])
        cast(asyncio.Transport, transport).abort()


def test_a_flood_of_connections_is_opened_in_turns() -> None:
    async def run(connections: contextlib.ExitStack) -> list[str]:
        order: list[str] = []
        turns = Turns(asyncio.get_running_loop(), lambda: 0.0, lambda: 0.0)
        turns.began(MODEST)
        listener = connections.enter_context(listen(MODEST, 0))
        acceptor = Acceptor(listener, lambda: Opened(order), turns)
        for client in [GREEDY] * FLOOD + [MODEST]:
            address, source = listener.getsockname(), (client, 0)
            connections.enter_context(socket.create_connection(address, 60, source))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(order) <= AT_ONCE
        while MODEST not in order:
            await asyncio.sleep(0.001)
        acceptor.close()
        await acceptor.wait_closed()
        return order

    with contextlib.ExitStack() as connections:
        order = asyncio.run(run(connections))

    assert order.count(GREEDY) < FLOOD / 2


def test_beyond_the_limit_the_client_with_the_most_waiting_connections_loses_its_newest() -> None:
    async def run() -> list[bool]:
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(listen(MODEST, 0))
            pairs = [socket.socketpair() for _ in range(5)]
            waiting = [stack.enter_context(ours) for _, ours in pairs]
            for theirs, _ in pairs:
                stack.enter_context(theirs)
            acceptor = Acceptor(listener, lambda: Opened([]), Turns(asyncio.get_running_loop()), 3)
            for connection, client in zip(waiting, "gmggg", strict=True):
                acceptor.add(connection, client)
            closed = [connection.fileno() < 0 for connection in waiting]
            acceptor.close()
            assert all(connection.fileno() < 0 for connection in waiting)
            await acceptor.wait_closed()
            return closed

    assert asyncio.run(run()) == [False, False, False, True, True]
