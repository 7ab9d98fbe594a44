"""The HTTP client of a download: every request is sent, and every response checked, here.

Nothing that leaves this module, errors included, contains the link.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence

import httpx

from llamakit._distribution import __version__
from llamakit.checkpoint.not_weights import HEAD_NBYTES, describe_not_weights
from llamakit.download import responses
from llamakit.download.checksums import checksum_of
from llamakit.download.http_errors import translated
from llamakit.download.link import Link
from llamakit.download.part_file import Identity
from llamakit.download.redaction import RedactLogs
from llamakit.download.redirects import origin, redirected, request_target
from llamakit.download.responses import Body, NoRangesError, RemoteFile, TransientError
from llamakit.download.server_folders import ServerFolders
from llamakit.download.standard_transport import StandardTransport, has_proxy
from llamakit.errors import DownloadError

MAX_REDIRECTS = 5
MAX_SMALL_NBYTES = 16 << 20
"""Licenses, checklists and params.json are far smaller; a tokenizer has a few MB."""

_REFUSED = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN, httpx.codes.GONE)
_ABSENT = (httpx.codes.NOT_FOUND, httpx.codes.BAD_REQUEST, httpx.codes.METHOD_NOT_ALLOWED)
_NOT_THERE = (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND)
"""S3 answers either for a file that it does not have."""
_LOGGERS = ("httpx", *(f"httpcore.{name}" for name in ("connection", "http11", "proxy", "socks")))
"""A logging filter applies only to its own logger; httpcore's log the targets of redirects."""


class HttpClient:
    """Requests files of a link's server. Several threads may use it at the same time.

    Args:
        timeout: how long to wait for the next byte, in seconds.
        connections: how many threads use it.
        folders: what folders may be called on the server, by their names on disk.
    """

    def __init__(
        self,
        link: Link,
        *,
        timeout: float,
        connections: int,
        folders: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._link = link
        self._folders = ServerFolders(folders or {})
        self._redactor = link.redactor()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket | None] = set()
        self._is_closed = False
        self._client = httpx.Client(
            headers={"Accept-Encoding": "identity", "User-Agent": f"llamakit/{__version__}"},
            timeout=httpx.Timeout(timeout, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=connections),
            transport=None if has_proxy() else StandardTransport(connections),
        )
        self._timeout = timeout
        self._log_filter = RedactLogs(self._redactor)
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self._log_filter)
        self.nrequests = 0
        """How many requests were sent."""

    def abort(self) -> None:
        """End every response that is being read, immediately."""
        with self._lock:
            self._is_closed = True
            for open_socket in filter(None, self._sockets):
                with contextlib.suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Abort all responses and close all connections."""
        self.abort()
        self._client.close()
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self._log_filter)

    def probe(self, path: str) -> RemoteFile:
        """Ask for the size of a file with a request for its first byte (HEAD is refused).

        Raises:
            TransientError: an error that a later request may not have.
            DownloadError: an error that will not pass.
        """
        with self._request(path, "bytes=0-0") as response:
            headers = response.headers
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                total: int | None = 0
            elif response.status_code == httpx.codes.PARTIAL_CONTENT:
                total = responses.content_range(headers).total
                if responses.content_length(headers) == 1:
                    response.read()  # to the end: the connection can be reused
                if total is None:
                    total = self._end(path)
            else:
                total = responses.content_length(headers)
            if total is None:
                raise DownloadError(
                    f"{self._link.host} does not report the size of {path}; expected a server of "
                    "plain files, with Content-Length or Content-Range"
                )
            ranges = response.status_code == httpx.codes.PARTIAL_CONTENT
            # A server that says so has them, and this response is an exception.
            ranges = ranges or headers.get("Accept-Ranges") == "bytes"
            return RemoteFile(Identity(path, total, responses.validator(headers)), ranges)

    def _end(self, path: str) -> int | None:
        """Ask where a file ends, by requesting its last byte; None if the server does not say."""
        with self._request(path, "bytes=-1") as response:
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                return responses.content_length(response.headers)
            return responses.content_range(response.headers).stop

    def small_file(self, path: str, checksum: str | None = None) -> bytes:
        """Fetch a file of a few KB or MB with one request.

        Args:
            checksum: a file that has it may be a web page.

        Raises:
            TransientError, DownloadError: as ``probe``.
        """
        data = bytearray()
        with self._request(path, None) as response:
            for chunk in response.iter_raw():
                data += chunk
                if len(data) > MAX_SMALL_NBYTES:
                    raise DownloadError(
                        f"{path} is over {MAX_SMALL_NBYTES >> 20} MiB on {self._link.host}; "
                        "expected a small file: is the link for something else?"
                    )
        is_right = checksum is not None and checksum_of(bytes(data), checksum) == checksum
        if not is_right and (problem := describe_not_weights(bytes(data[:HEAD_NBYTES]))):
            raise self._page_error(path, problem)
        self._refuse_link(path, bytes(data))
        return bytes(data)

    @contextlib.contextmanager
    def byte_range(self, identity: Identity, start: int, stop: int) -> Iterator[Body]:
        """Request the bytes of a file from ``start`` to ``stop``; yield them as they arrive.

        The server may send more of them, or fewer, and announce fewer.

        Raises:
            TransientError, DownloadError: as ``probe``, also while the bytes are read.
            ChangedError: the file has changed on the server.
            NoRangesError: the server sends the whole file.
        """
        with self._request(identity.path, f"bytes={start}-{stop - 1}") as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise responses.ChangedError(f"it ends before byte {start} now")
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                responses.check_same(
                    response.headers, identity, responses.content_length(response.headers)
                )
                raise NoRangesError
            end = responses.check_range(response.headers, start, identity)
            yield Body(self._without_link(identity.path, response), min(stop, end))

    @contextlib.contextmanager
    def full_file(self, identity: Identity) -> Iterator[Body]:
        """Request a whole file, from a server without ranges. Raises as ``byte_range``."""
        with self._request(identity.path, None) as response:
            responses.check_same(
                response.headers, identity, responses.content_length(response.headers)
            )
            yield Body(self._without_link(identity.path, response), identity.nbytes)

    def _without_link(self, path: str, response: httpx.Response) -> Iterator[bytes]:
        """Yield a body; refuse one that begins with an error that repeats the link."""
        chunks = response.iter_raw()
        head = b""
        while len(head) < HEAD_NBYTES and (chunk := next(chunks, b"")):
            head += chunk  # a server may send it in pieces
        self._refuse_link(path, head[:HEAD_NBYTES])
        if head:
            yield head
        yield from chunks

    def _refuse_link(self, path: str, data: bytes) -> None:
        """Raise if the link is in what would be written to disk."""
        if self._redactor.is_in(data):
            raise TransientError(
                f"{self._link.host} sent parts of the link instead of {path}", max_attempts=3
            )

    @contextlib.contextmanager
    def _request(self, path: str, byte_range: str | None) -> Iterator[httpx.Response]:
        """Send a request, check the response, translate httpx's errors."""
        with translated(self._link.host, self._redactor, self._timeout):
            while True:
                place = self._folders.path(path)
                with self._response(place, byte_range) as response:
                    if response.status_code in _NOT_THERE and self._folders.try_next(path):
                        continue
                    self._check(place, response)
                    self._folders.confirm(path)
                    yield response
                    return

    @contextlib.contextmanager
    def _response(self, path: str, byte_range: str | None) -> Iterator[httpx.Response]:
        """Send a request, and follow redirects."""
        first = address = self._link.url(path)
        extensions = {"target": request_target(address)}
        for _ in range(MAX_REDIRECTS + 1):
            headers = {} if byte_range is None else {"Range": byte_range}
            if origin(address) == origin(first):
                headers |= self._link.headers
            request = self._client.build_request(
                "GET", address, headers=headers, extensions=extensions
            )
            self.nrequests += 1
            response = self._client.send(request, stream=True)
            with self._tracked(response):
                location = response.headers.get("Location", "")
                response.headers = httpx.Headers(self._redactor.headers(response.headers))
                if not response.has_redirect_location:
                    yield response
                    return
                extensions = {}
                address = redirected(self._link, self._redactor, path, address, location)
        raise TransientError(f"{self._link.host} redirects {path} in a circle", max_attempts=3)

    @contextlib.contextmanager
    def _tracked(self, response: httpx.Response) -> Iterator[None]:
        """Remember a response's socket, so that ``abort`` can end a blocked read."""
        stream = response.extensions.get("network_stream")
        response_socket = stream.get_extra_info("socket") if stream is not None else None
        with self._lock:
            if self._is_closed:
                response.close()
                raise TransientError("the download is being stopped")
            self._sockets.add(response_socket)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(response_socket)
            response.close()

    def _check(self, path: str, response: httpx.Response) -> None:
        """Refuse a response that does not contain bytes of the file."""
        code, host = response.status_code, self._link.host
        if code in _REFUSED:
            raise self._link.refusal(path, code)
        if code in _ABSENT:
            raise DownloadError(
                f"{host} has no {path} (HTTP {code}): is the link for this model, and the base "
                "address right?"
            )
        if code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return
        if code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            raise TransientError(
                f"{host} answered HTTP {code}", after=responses.retry_after(response.headers)
            )
        if responses.is_page(response.headers):
            head = next(response.iter_raw(HEAD_NBYTES), b"")
            raise self._page_error(path, describe_not_weights(head) or "an HTML page")
        if responses.is_compressed(response.headers):
            raise TransientError(
                f"{host} sent {path} compressed, though it was asked not to", max_attempts=3
            )

    def _page_error(self, path: str, page: str) -> TransientError:
        shown = self._redactor.redacted(page)
        return TransientError(
            f"{self._link.host} sent {shown} instead of {path}: a login page of this network, a "
            "proxy, or a link that has expired",
            max_attempts=3,
        )
