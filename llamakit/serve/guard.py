"""What every request passes on its way in: the log, the host it names, its key."""

from __future__ import annotations

import hmac
import traceback
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from llamakit.serve.api_errors import ApiError
from llamakit.serve.metrics import Metrics
from llamakit.serve.request_log import Record, write

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
    """Return an error as an answer."""
    return JSONResponse(error.body(), error.status, error.headers)


class Logged:
    """Writes one line a request, counts it, and turns what nobody has caught into a 500."""

    def __init__(self, app: App, metrics: Metrics, as_json: bool, routes: Sequence[str]) -> None:
        self._app, self._metrics, self._as_json = app, metrics, as_json
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        record = Record(scope["method"], scope["path"], client[0] if client else "")
        scope["llamakit.record"] = record

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:  # noqa: BLE001 (the log says it, and the client something)
            record.notes["error"] = type(error).__name__
            write_trace(error)
            if not record.status:
                failed = ApiError(500, "the server failed; its log says why", code="internal_error")
                await error_response(failed)(scope, receive, noting)
        finally:
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.requests.labels(route, record.status).inc()
            write(record.line(self._as_json))


def write_trace(error: BaseException) -> None:
    """Say where something failed. Not what: the words of an error may hold a prompt's."""
    for line in traceback.format_tb(error.__traceback__):
        write(line.rstrip())
    write(type(error).__name__)


class Counted:
    """Refuses requests on connections beyond the limit.

    Args:
        count: how many connections are open, the one that asks among them.
        most: how many there may be.
    """

    def __init__(self, app: App, count: Callable[[], int], most: int) -> None:
        self._app, self._count, self._most = app, count, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and self._count() > self._most:
            error = ApiError(
                503,
                f"the server has {self._most} connections already, its limit",
                code="too_many_connections",
                headers={"Retry-After": "1", "Connection": "close"},
            )
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class HostChecked:
    """Refuses requests that name another host.

    A page of a stranger's whose name is made to stand for this machine (DNS rebinding) is, to the
    browser, at home here; the name gives it away.

    Args:
        hosts: names, without ports; none lets all pass.
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
                    "this server does not go by the name that the request gives it; "
                    "--allowed-host adds one",
                    code="unknown_host",
                )
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _without_port(host: str) -> str:
    name, colon, port = host.strip().lower().rpartition(":")
    bare = name if colon and port.isdecimal() else host.strip().lower()
    return bare.rstrip(".")


class KeyChecked:
    """Asks for a key, except for what says nothing: the page's own files and ``/health``.

    Args:
        keys: any of them opens the door; none means that no key is asked for.
        is_open: tells of a path that it needs none.
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
        scope["llamakit.client"] = address
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
        await self._app(scope, receive, send)

    def _number(self, header: str) -> int | None:
        """Return which key a header holds, in a time that does not tell how near a wrong one is."""
        scheme, _, given = header.partition(" ")
        found = None
        for number, key in enumerate(self._keys, start=1):
            if hmac.compare_digest(given.strip().encode(), key):
                found = number
        return found if scheme.lower() == "bearer" else None
