"""The server process: startup, signals and graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import cast

import uvicorn

from llamakit.errors import UsageError
from llamakit.llama.llama import Llama
from llamakit.serve.acceptor import WAITING, Acceptor
from llamakit.serve.app import Api
from llamakit.serve.connections import Connections
from llamakit.serve.http_protocol import HttpProtocol
from llamakit.serve.server_settings import ServeSettings

CLOSE_TIMEOUT = 5
"""Seconds to close connections after all answers have ended."""

SWITCH_SECONDS = 0.0001
"""How long the event loop keeps Python's lock from the model's thread, which needs it after each
kernel: with Python's 5 ms, a step of 3 ms took 300 beside a flood of requests."""

SIGNAL_WINDOW = 1.0
"""Signals within so many seconds count as one: Ctrl-C comes from the terminal and torchrun."""


def listen(host: str, port: int) -> socket.socket:
    """Bind to an address, before anything is loaded.

    Raises:
        UsageError: it cannot be bound to.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        with contextlib.ExitStack() as undo:
            undo.callback(listener.close)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            undo.pop_all()
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another with "
            "--host and --port (0 takes any free port)"
        ) from error
    return listener


class Server:
    """One server, from its first request to its end.

    Args:
        listener: from ``listen``.
    """

    def __init__(self, llama: Llama, settings: ServeSettings, listener: socket.socket) -> None:
        self._llama, self._settings, self._listener = llama, settings, listener
        self._loop: asyncio.AbstractEventLoop | None = None
        self._uvicorn: _Uvicorn | None = None
        self._api: Api | None = None
        self._last_signal = -SIGNAL_WINDOW

    def run(self, ready: Callable[[str], None], *, signals: bool = True) -> None:
        """Serve requests until shutdown.

        Args:
            ready: called with the server's address when it accepts requests.
            signals: SIGTERM and Ctrl-C shut it down gracefully; only in the main thread.
        Raises:
            ParallelError: a rank has died.
        """
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            asyncio.run(self._run(ready, signals))
        finally:
            sys.setswitchinterval(interval)

    def end(self) -> None:
        """Shut down, from any thread, after the grace period; at once if called a second time."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)

    async def _run(self, ready: Callable[[str], None], signals: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._api = Api(self._llama, self._settings, int(time.time()))
        try:
            await self._api.warm_up()
            self._uvicorn = _Uvicorn(self._api, self._settings)
            for number in (signal.SIGTERM, signal.SIGINT) if signals else ():
                self._loop.add_signal_handler(number, self._signalled)
            serving = asyncio.ensure_future(self._uvicorn.serve([self._listener]))
            while not (self._uvicorn.started or serving.done()):
                await asyncio.sleep(0.01)
            ready(address(self._listener))
            broken = self._api.admission.broken
            await asyncio.wait({serving, broken}, return_when=asyncio.FIRST_COMPLETED)
            self._uvicorn.should_exit = True
            await serving
            if broken.done():
                broken.result()
        finally:
            await self._api.close()
            self._listener.close()

    def _signalled(self) -> None:
        now = time.monotonic()
        if now - self._last_signal > SIGNAL_WINDOW:
            self._last_signal = now
            self._end()

    def _end(self) -> None:
        if self._loop is None or self._api is None or self._uvicorn is None:
            return
        admission = self._api.admission
        if admission.closing:
            admission.cancel_all()
            return
        admission.closing = True
        self._uvicorn.should_exit = True
        self._loop.call_later(self._settings.grace, admission.cancel_all)


def address(listener: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _config(api: Api, settings: ServeSettings, connections: Connections) -> uvicorn.Config:
    return uvicorn.Config(
        api.app(connections),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.grace) + CLOSE_TIMEOUT,
    )


class _Uvicorn(uvicorn.Server):
    """A uvicorn server that leaves signals to ``Server``, and connections to ``Acceptor``."""

    def __init__(self, api: Api, settings: ServeSettings) -> None:
        self._connections = Connections(settings.limits.connections)
        super().__init__(_config(api, settings, self._connections))
        self._arrival, self._turns = settings.limits.arrival, api.turns

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        most = max(WAITING, self._connections.most)
        acceptors = [Acceptor(it, self._protocol, self._turns, most) for it in sockets or ()]
        self.servers = cast(list[asyncio.Server], acceptors)
        self.started = True

    def _protocol(self) -> HttpProtocol:
        return HttpProtocol(
            self.config,
            self.server_state,
            self.lifespan.state,
            arrival=self._arrival,
            open_connections=self._connections,
            turns=self._turns,
        )
