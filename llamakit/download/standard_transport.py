"""HTTP/1.1 of Python's standard library below httpx: large reads, and a body copied once.

httpx's own transport reads 64 KB at a time and copies them three more times on their way through
h11. ``http.client`` has no proxies: where one is configured, httpx's own transport is used.
"""

from __future__ import annotations

import http.client
import selectors
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import getproxies

import httpx

_MIN_READ_NBYTES, _MAX_READ_NBYTES = 16 << 10, 256 << 10
"""A read waits for all of its bytes. If the connection breaks meanwhile they are lost."""
_READ_SECONDS = 0.02
"""Reads that take longer become shorter."""
_MAX_INTERIM = 16
"""How many responses without a result, such as 103, a server may send before the response."""

_Origin = tuple[str, str, int]


def has_proxy() -> bool:
    """Tell whether the environment, or the system, names a proxy for HTTP."""
    return not getproxies().keys().isdisjoint({"http", "https", "all"})


class StandardTransport(httpx.BaseTransport):
    """Sends requests over kept-alive connections. Several threads may use it at the same time.

    Args:
        max_idle: how many connections are kept open at most, for each server.
    """

    def __init__(self, max_idle: int) -> None:
        self._max_idle = max_idle
        self._lock = threading.Lock()
        self._idle: defaultdict[_Origin, list[http.client.HTTPConnection]] = defaultdict(list)
        self._is_closed = False
        self._tls: ssl.SSLContext | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request without a body; return the response, whose body is not read yet.

        Raises:
            httpx.TransportError, httpx.InvalidURL: as httpx's own transport.
        """
        origin = _origin(request.url)
        connection = self._take(origin) or self._connect(origin, request)
        try:
            with _errors_of_httpx():
                _send(connection, request)
                used_socket = connection.sock  # gone afterwards if the server closes it
                response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        return httpx.Response(
            response.status,
            headers=response.getheaders(),
            stream=_Body(self, origin, connection, response),
            extensions={"network_stream": _NetworkStream(used_socket), "http_version": b"HTTP/1.1"},
        )

    def close(self) -> None:
        """Close the idle connections; those that are in use are closed when they are given back."""
        with self._lock:
            self._is_closed = True
            idle = [connection for group in self._idle.values() for connection in group]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def give_back(self, origin: _Origin, connection: http.client.HTTPConnection) -> None:
        """Keep a connection, whose response has been read to its end, for the next request."""
        with self._lock:
            group = self._idle[origin]
            if not self._is_closed and len(group) < self._max_idle:
                group.append(connection)
                return
        connection.close()

    def _take(self, origin: _Origin) -> http.client.HTTPConnection | None:
        """Return an idle connection that the server has not closed."""
        while True:
            with self._lock:
                if not self._idle[origin]:
                    return None
                connection = self._idle[origin].pop()
            if not _is_readable(connection.sock):
                return connection
            connection.close()

    def _connect(self, origin: _Origin, request: httpx.Request) -> http.client.HTTPConnection:
        scheme, host, port = origin
        seconds = request.extensions.get("timeout", {}).get("read")
        connection = http.client.HTTPConnection(host, port, timeout=seconds)
        if scheme == "https":
            connection = http.client.HTTPSConnection(
                host, port, timeout=seconds, context=self._context()
            )
        connection.response_class = _Response
        try:
            connection.connect()
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from None
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error)) from None
        return connection

    def _context(self) -> ssl.SSLContext:
        """Return the settings of TLS, loaded once: certificates as httpx chooses them."""
        with self._lock:
            if self._tls is None:
                self._tls = httpx.create_ssl_context()
                self._tls.set_alpn_protocols(["http/1.1"])
            return self._tls


class _Response(http.client.HTTPResponse):
    """A response; those that only announce it (1xx) are skipped, as httpx's own transport does."""

    def begin(self) -> None:
        """Read the status and the headers."""
        super().begin()
        for _ in range(_MAX_INTERIM):
            if self.status >= 200:
                return
            self.headers = None  # type: ignore[assignment]  # not read yet
            super().begin()
        raise http.client.HTTPException("the server only announces a response")


class _NetworkStream:
    """Names the socket of a response, as httpcore's extension of the same name does."""

    def __init__(self, used_socket: socket.socket) -> None:
        self._socket = used_socket

    def get_extra_info(self, name: str) -> socket.socket | None:
        return self._socket if name == "socket" else None


class _Body(httpx.SyncByteStream):
    """The body of a response; the connection is kept if it is read to its end."""

    def __init__(
        self,
        transport: StandardTransport,
        origin: _Origin,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
    ) -> None:
        self._transport, self._origin = transport, origin
        self._connection, self._response = connection, response
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes as they are sent, in pieces of so many as arrive in 20 ms.

        Raises:
            httpx.RemoteProtocolError: there are fewer than were announced.
        """
        size = _MIN_READ_NBYTES
        while not self._response.isclosed():
            began = time.monotonic()
            with _errors_of_httpx():
                data = self._response.read(size)
            if not data:
                break
            is_quick = time.monotonic() - began < _READ_SECONDS
            size = min(2 * size, _MAX_READ_NBYTES) if is_quick else max(size // 2, _MIN_READ_NBYTES)
            yield data
        if self._response.length:
            raise httpx.RemoteProtocolError(
                f"it was closed {self._response.length} bytes before the end that was announced"
            )

    def close(self) -> None:
        """End the response."""
        if self._is_closed:
            return
        self._is_closed = True
        is_whole = self._response.isclosed() and not self._response.length
        if is_whole and not self._response.will_close:
            self._transport.give_back(self._origin, self._connection)
        else:
            self._response.close()
            self._connection.close()


def _origin(url: httpx.URL) -> _Origin:
    return (
        url.scheme,
        url.raw_host.decode("ascii"),
        url.port or (443 if url.scheme == "https" else 80),
    )


def _send(connection: http.client.HTTPConnection, request: httpx.Request) -> None:
    target = request.extensions.get("target", request.url.raw_path)
    connection.putrequest(
        request.method, target.decode("ascii"), skip_host=True, skip_accept_encoding=True
    )
    for name, value in request.headers.raw:
        connection.putheader(name, value)
    connection.endheaders()


def _is_readable(idle: socket.socket | None) -> bool:
    """Tell whether a server has closed an idle connection, or sent what nobody asked for."""
    if idle is None:
        return True
    with selectors.DefaultSelector() as selector:
        selector.register(idle, selectors.EVENT_READ)
        return bool(selector.select(0))


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    """Raise what httpx's own transport raises in such a case."""
    try:
        yield
    except http.client.InvalidURL:  # its text has the signed link
        raise httpx.InvalidURL("the link has characters that HTTP does not allow") from None
    except TimeoutError as error:
        raise httpx.ReadTimeout(str(error)) from None
    except http.client.HTTPException as error:
        raise httpx.RemoteProtocolError(str(error)) from None
    except OSError as error:
        raise httpx.ReadError(str(error)) from None
    except ValueError:  # its text has the header, which may be a token
        raise httpx.LocalProtocolError("a header has characters that HTTP does not allow") from None
