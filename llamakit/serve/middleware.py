"""ASGI middleware: request log, connection limit, host check and API keys."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from llamakit.serve.api_errors import ApiError
from llamakit.serve.client_identity import client_of_address
from llamakit.serve.connections import Connections
from llamakit.serve.metrics import Metrics
from llamakit.serve.request_ids import REQUEST_ID_HEADER, request_id
from llamakit.serve.request_log import Record, trace, write

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


def error_response(error: ApiError) -> JSONResponse:
    """Return an error as a response."""
    return JSONResponse(error.body(), error.status, error.headers)


class RequestLogMiddleware:
    """Logs and counts each request, and turns uncaught exceptions into a 500."""

    def __init__(self, app: App, metrics: Metrics, as_json: bool, routes: Sequence[str]) -> None:
        self._app, self._metrics, self._as_json = app, metrics, as_json
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        identity = request_id(Headers(scope=scope).get(REQUEST_ID_HEADER))
        record = Record(identity, scope["method"], scope["path"], client[0] if client else "")
        scope["llamakit.record"] = record

        async def recording_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = identity
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, recording_send)
        except Exception as error:  # noqa: BLE001 (logged, and answered with a 500)
            record.notes |= {"error": type(error).__name__, "trace": trace(error)}
            if not record.status:
                failed = ApiError(500, "the server failed; its log says why", code="internal_error")
                await error_response(failed)(scope, receive, recording_send)
        finally:
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.requests.labels(route, record.status).inc()
            write(record.line(self._as_json))


class FramingMiddleware:
    """Refuses requests whose end a proxy might see elsewhere, and closes their connection.

    What follows such a request could be another client's, put there by this one (request
    smuggling). Lengths that contradict one another are refused by h11 already.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            is_chunked = "transfer-encoding" in headers
            if is_chunked and ("content-length" in headers or scope["http_version"] == "1.0"):
                error = ApiError(
                    400,
                    "Transfer-Encoding excludes Content-Length and needs HTTP/1.1",
                    code="invalid_http",
                    headers={"Connection": "close"},
                )
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class ConnectionLimitMiddleware:
    """Refuses requests on connections beyond the limit."""

    def __init__(self, app: App, connections: Connections) -> None:
        self._app, self._connections = app, connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        connection = scope.get("llamakit.connection")
        if scope["type"] == "http" and self._connections.is_full(connection):
            error = ApiError(
                429,  # a 503 would have nginx leave the server out
                f"the server has {self._connections.most} connections at work, its limit, or "
                "nearly so many of yours",
                code="too_many_connections",
                headers={"Retry-After": "1", "Connection": "close"},
            )
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class HostMiddleware:
    """Refuses requests whose Host header is not one of the server's names.

    This stops DNS rebinding: a foreign page whose host name is made to resolve to this machine
    still sends that name.

    Args:
        hosts: allowed names, without ports; empty allows all.
    """

    def __init__(self, app: App, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and self._hosts:
            given = Headers(scope=scope).getlist("host")
            if len(given) != 1 or _without_port(given[0]) not in self._hosts:
                error = ApiError(
                    421,
                    "the Host header is not a name of this server; --allowed-host adds one",
                    code="unknown_host",
                )
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class TrailingSlashMiddleware:
    """Answers a path with a slash at its end as the one without it.

    A redirect would name the address that a proxy uses, http for https, and not all clients follow.
    """

    def __init__(self, app: App, paths: Sequence[str]) -> None:
        self._app, self._paths = app, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and (path := scope["path"].removesuffix("/")) in self._paths:
            scope["path"] = path
        await self._app(scope, receive, send)


def _without_port(host: str) -> str:
    name, colon, port = host.strip().lower().rpartition(":")
    bare = name if colon and port.isdecimal() else host.strip().lower()
    return bare.rstrip(".")


class ApiKeyMiddleware:
    """Requires an API key, except for the page's files and ``/health``.

    Args:
        keys: the valid keys; empty means that none is required.
        is_open: returns whether a path needs no key.
    """

    def __init__(self, app: App, keys: Sequence[str], is_open: Callable[[str], bool]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = scope["client"][0] if scope.get("client") else ""
        scope["llamakit.client"] = client_of_address(address)
        if self._keys and not self._is_open(scope["path"]):
            number = self._number(Headers(scope=scope).get("authorization", ""))
            if number is None:
                error = ApiError(
                    401,
                    "expected the header Authorization: Bearer KEY, with a key of this server",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await error_response(error)(scope, receive, send)
                return
            if len(self._keys) > 1:
                scope["llamakit.client"] = f"key {number}"
                if (connection := scope.get("llamakit.connection")) is not None:
                    connection.client_id = scope["llamakit.client"]
        await self._app(scope, receive, send)

    def _number(self, header: str) -> int | None:
        """Return the number of the key in a header; compares in constant time."""
        scheme, _, given = header.partition(" ")
        valid = None
        for number, key in enumerate(self._keys, start=1):
            if hmac.compare_digest(given.strip().encode(), key):
                valid = number
        return valid if scheme.lower() == "bearer" else None
