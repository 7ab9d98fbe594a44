"""The server's life: it listens, answers, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from llamakit.errors import UsageError
from llamakit.llama import Llama
from llamakit.serve.app import Service
from llamakit.serve.settings import ServeSettings

AFTER_GRACE = 5
"""Seconds for connections to be closed when all answers have been ended."""


def listen(host: str, port: int) -> socket.socket:
    """Bind to an address, before anything is loaded.

    Raises:
        UsageError: it cannot be bound to.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another with "
            "--host and --port (0 takes any free port)"
        ) from error
    return listener


def serve(
    llama: Llama,
    settings: ServeSettings,
    listener: socket.socket,
    ready: Callable[[str], None] = lambda url: None,  # noqa: ARG005
) -> None:
    """Answer requests until SIGTERM or Ctrl-C.

    Args:
        listener: of ``listen``.
        ready: told the server's address when it answers.
    """
    asyncio.run(_serve(llama, settings, listener, ready))


async def _serve(
    llama: Llama, settings: ServeSettings, listener: socket.socket, ready: Callable[[str], None]
) -> None:
    service = Service(llama, settings, int(time.time()))
    try:
        await service.warm_up()
        server = _Server(_config(service, settings))
        with _signals(server, service, settings.grace):
            serving = asyncio.ensure_future(server.serve([listener]))
            while not (server.started or serving.done()):
                await asyncio.sleep(0.01)
            ready(address(listener))
            await serving
    finally:
        service.close()


def address(listener: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _config(service: Service, settings: ServeSettings) -> uvicorn.Config:
    limits = settings.limits

    class Protocol(_Punctual):
        arrival = limits.arrival

    return uvicorn.Config(
        service.app(),
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.grace) + AFTER_GRACE,
    )


class _Server(uvicorn.Server):
    """A server whose signals are taken care of elsewhere."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Punctual(H11Protocol):
    """Closes connections on which the head of a request does not arrive in time."""

    arrival = 20.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Have a deadline as long as a request has begun to arrive and its head is not there."""
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.arrival, self._close)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        if self.conn.their_state is h11.IDLE and self.transport is not None:
            self.transport.close()


@contextlib.contextmanager
def _signals(server: uvicorn.Server, service: Service, grace: float) -> Iterator[None]:
    """End in order at SIGTERM and Ctrl-C, and at once when one comes a second time."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        if service.engine.closing:
            service.engine.cancel_all()
            return
        service.engine.closing = True
        server.should_exit = True
        loop.call_later(grace, service.engine.cancel_all)

    numbers: list[Any] = [signal.SIGTERM, signal.SIGINT]
    for number in numbers:
        loop.add_signal_handler(number, end)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
