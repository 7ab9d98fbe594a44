"""The server process: startup, signals and graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from llamakit.errors import UsageError
from llamakit.llama.llama import Llama
from llamakit.serve.api_errors import bad
from llamakit.serve.app import Api
from llamakit.serve.server_settings import ServeSettings

CLOSE_TIMEOUT = 5
"""Seconds to close connections after all answers have ended."""

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
        asyncio.run(self._run(ready, signals))

    def end(self) -> None:
        """Shut down, from any thread, after the grace period; at once if called a second time."""
        if self._loop is not None:
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
            self._api.close()
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


def _config(app: Starlette, settings: ServeSettings) -> uvicorn.Config:
    limits = settings.limits

    class Protocol(_TimedProtocol):
        arrival = limits.arrival
        most = limits.connections

    return uvicorn.Config(
        app,
        http=Protocol,
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
    """A uvicorn server that leaves signals to ``Server``."""

    def __init__(self, api: Api, settings: ServeSettings) -> None:
        super().__init__(_config(api.app(self._connections), settings))

    def _connections(self) -> int:
        return len(self.server_state.connections)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _TimedProtocol(H11Protocol):
    """Closes connections on which the head of a request does not arrive in time.

    Connections beyond the limit get an error response (``ConnectionLimitMiddleware``); those
    beyond twice the limit are closed at once.
    """

    arrival = 20.0
    most = 256
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > 2 * self.most:
            transport.abort()
            return
        self._update_deadline()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Respond to invalid HTTP with an error in the API's format."""
        body = json.dumps(bad(msg.rstrip(".").lower(), code="invalid_http").body()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        head = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _update_deadline(self) -> None:
        """Set a deadline while the head of a request is incomplete; clear it afterwards."""
        if self.conn.their_state is not h11.IDLE:
            self._clear_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.arrival, self._close)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        if self.conn.their_state is h11.IDLE and self.transport is not None:
            self.transport.close()
