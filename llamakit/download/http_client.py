"""One server, asked for files: every request and every answer passes here.

Nothing that leaves this module, errors included, holds the link.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

from llamakit._distribution import __version__
from llamakit.checkpoint.not_weights import HEAD_NBYTES, describe_impostor
from llamakit.download import responses as answers
from llamakit.download.link import Link
from llamakit.download.part_file import Identity
from llamakit.download.responses import NoRangesError, TransientError
from llamakit.errors import DownloadError, LinkEndedError

MAX_REDIRECTS = 5
MAX_SMALL_NBYTES = 16 << 20
"""No licence, list or params.json is anywhere near as large; a tokenizer has a few MB."""

_QUERY = re.compile(r"\?[^\s\"']+")
_ERROR_NUMBER = re.compile(r"^\[Errno -?\d+\] ")
_LOGGERS = ("httpx", *(f"httpcore.{name}" for name in ("connection", "http11", "proxy", "socks")))
"""A filter is asked only by the logger that it stands at; httpcore's log where redirects lead."""


class Probe(NamedTuple):
    """What a server says of a file before it is fetched."""

    identity: Identity
    accepts_ranges: bool


class HttpClient:
    """Where the link leads. Threads may ask at the same time.

    Args:
        timeout: how long a server may be silent, in seconds.
        connections: how many threads ask.
    """

    def __init__(self, link: Link, *, timeout: float, connections: int) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._sockets: set[socket.socket | None] = set()
        self._is_closed = False
        self._client = httpx.Client(
            headers={"Accept-Encoding": "identity", "User-Agent": f"llamakit/{__version__}"},
            timeout=httpx.Timeout(timeout, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=connections),
        )
        self._timeout = timeout
        self._log_filter = _NoQueries()
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self._log_filter)
        self.nrequests = 0
        """How many requests were sent."""

    def hang_up(self) -> None:
        """End every answer that is being read, at once."""
        with self._lock:
            self._is_closed = True
            for one in filter(None, self._sockets):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up, and let go of everything."""
        self.hang_up()
        self._client.close()
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self._log_filter)

    def probe(self, path: str) -> Probe:
        """Ask how large a file is, with a request for its first byte (HEAD is refused).

        Raises:
            TransientError: something that may pass.
            DownloadError: something that will not.
        """
        with self._answer(path, "bytes=0-0") as response:
            headers = response.headers
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                total: int | None = 0
            elif response.status_code == httpx.codes.PARTIAL_CONTENT:
                total = answers.content_range(headers).total
                if _length(headers) == 1:  # read whole, the connection can be used again
                    response.read()
            else:
                total = _length(headers)
            if total is None:
                raise DownloadError(
                    f"{self._link.host} does not say how large {path} is; expected a server of "
                    "plain files, with Content-Length or Content-Range"
                )
            ranges = response.status_code == httpx.codes.PARTIAL_CONTENT
            ranges = ranges or headers.get("Accept-Ranges") == "bytes"  # then it was an exception
            return Probe(Identity(path, total, answers.validator(headers)), ranges)

    def small_file(self, path: str) -> bytes:
        """Fetch a file of a few KB or MB whole.

        Raises:
            TransientError, DownloadError: as ``probe``.
        """
        data = bytearray()
        with self._answer(path, None) as response:
            for chunk in response.iter_raw():
                data += chunk
                if len(data) > MAX_SMALL_NBYTES:
                    raise DownloadError(
                        f"{path} is over {MAX_SMALL_NBYTES >> 20} MiB on {self._link.host}; "
                        "expected a small file: is the link for something else?"
                    )
        if impostor := describe_impostor(bytes(data[:HEAD_NBYTES])):
            raise self._page(path, impostor)
        return bytes(data)

    @contextlib.contextmanager
    def bytes_of(self, identity: Identity, start: int, stop: int) -> Iterator[Iterator[bytes]]:
        """Open the bytes of a file from ``start`` to ``stop``, piece by piece as they arrive.

        There may be more of them, or fewer.

        Raises:
            TransientError, DownloadError: as ``probe``, also while the pieces are read.
            ChangedError: the server has another file now.
            NoRangesError: the server sends the whole file.
        """
        with self._answer(identity.path, f"bytes={start}-{stop - 1}") as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise answers.ChangedError(f"it ends before byte {start} now")
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                answers.check_same(response.headers, identity, _length(response.headers))
                raise NoRangesError
            answers.check_range(response.headers, start, identity)
            yield response.iter_raw()

    @contextlib.contextmanager
    def whole(self, identity: Identity) -> Iterator[Iterator[bytes]]:
        """Open all bytes of a file, for a server that knows no ranges. Raises as ``bytes_of``."""
        with self._answer(identity.path, None) as response:
            answers.check_same(response.headers, identity, _length(response.headers))
            yield response.iter_raw()

    @contextlib.contextmanager
    def _answer(self, path: str, wanted: str | None) -> Iterator[httpx.Response]:
        """Send a request, follow redirects, refuse what is no file, translate httpx's errors."""
        with _translated(self._link, self._timeout):
            address = self._link.url(path)
            extensions = {"target": _target(address)}
            for _ in range(MAX_REDIRECTS + 1):
                headers = {} if wanted is None else {"Range": wanted}
                request = self._client.build_request(
                    "GET", address, headers=headers, extensions=extensions
                )
                self.nrequests += 1
                response = self._client.send(request, stream=True)
                with self._watched(response):
                    if not response.has_redirect_location:
                        self._check(path, response)
                        yield response
                        return
                    extensions = {}
                    address = self._redirected(path, address, response)
        raise TransientError(f"{self._link.host} redirects {path} in a circle", patience=3)

    @contextlib.contextmanager
    def _watched(self, response: httpx.Response) -> Iterator[None]:
        """Remember a response's socket, so that ``close`` can end a read that waits."""
        stream = response.extensions.get("network_stream")
        found = stream.get_extra_info("socket") if stream is not None else None
        with self._lock:
            if self._is_closed:
                response.close()
                raise TransientError("the download is being stopped")
            self._sockets.add(found)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(found)
            response.close()

    def _check(self, path: str, response: httpx.Response) -> None:
        """Refuse an answer that does not hold bytes of the file."""
        code, host = response.status_code, self._link.host
        if code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN, httpx.codes.GONE):
            raise self._refused(path, code)
        if code in (httpx.codes.NOT_FOUND, httpx.codes.BAD_REQUEST, httpx.codes.METHOD_NOT_ALLOWED):
            raise DownloadError(
                f"{host} has no {path} (HTTP {code}): is the link for this model, and the base "
                "address right?"
            )
        if code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return
        if code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            raise TransientError(
                f"{host} answered HTTP {code}", after=answers.wanted_wait(response.headers)
            )
        if answers.is_page(response.headers):
            head = next(response.iter_raw(HEAD_NBYTES), b"")
            raise self._page(path, describe_impostor(head) or "an HTML page")
        if answers.is_compressed(response.headers):
            raise TransientError(
                f"{host} sent {path} compressed, though that was not asked", patience=3
            )

    def _refused(self, path: str, code: int) -> DownloadError:
        if not self._link.is_signed:
            return DownloadError(f"{self._link.host} refuses {path} (HTTP {code})")
        return LinkEndedError(
            f"{self._link.host} refuses {path} (HTTP {code}): the link has ended (its time, or "
            "its number of requests). What is downloaded is kept: run the same command with a "
            "new link from Meta and it goes on."
        )

    def _page(self, path: str, found: str) -> TransientError:
        return TransientError(
            f"{self._link.host} sent {found} instead of {path}: a login page of this network, a "
            "proxy, or a link that has ended",
            patience=3,
        )

    def _redirected(self, path: str, address: str, response: httpx.Response) -> str:
        target = httpx.URL(address).join(response.headers["Location"])
        if target.scheme not in ("http", "https"):
            raise DownloadError(f"{self._link.host} redirects {path} to {target.scheme}:, no file")
        if address.startswith("https:") and target.scheme == "http":
            raise DownloadError(
                f"{self._link.host} redirects {path} to an address that is not encrypted "
                f"({target.host}); that is not followed"
            )
        return str(target)


def _target(address: str) -> bytes:
    """Return path and query as they stand: httpx would spell some characters in another way."""
    parts = urlsplit(address)
    return (parts.path + ("?" + parts.query if parts.query else "")).encode("ascii")


def _length(headers: httpx.Headers) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


@contextlib.contextmanager
def _translated(link: Link, timeout: float) -> Iterator[None]:
    """Turn httpx's errors into ours, without the address that they may name."""
    try:
        yield
    except httpx.TimeoutException:
        raise TransientError(f"no byte from {link.host} for {timeout:g} s") from None
    except httpx.ConnectError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise DownloadError(
                f"the certificate of {link.host} cannot be verified: is the clock right, and a "
                "proxy between? SSL_CERT_FILE names other authorities"
            ) from None
        if "WRONG_VERSION_NUMBER" in str(error):
            raise DownloadError(f"{link.host} answers without TLS: is the link http:// ?") from None
        why = _ERROR_NUMBER.sub("", link.redacted(str(error)))
        raise TransientError(f"no connection to {link.host}: {why}") from None
    except httpx.TransportError as error:
        why = _ERROR_NUMBER.sub("", link.redacted(str(error))) or type(error).__name__
        raise TransientError(f"the connection to {link.host} broke: {why}") from None
    except (httpx.InvalidURL, httpx.HTTPError, UnicodeError):
        raise DownloadError(f"{link.host} cannot be asked: the address is malformed") from None


class _NoQueries(logging.Filter):
    """Keeps what is secret out of httpx's log records: the query of every address."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Write the record's message without queries."""
        record.msg, record.args = _QUERY.sub("?[secret]", record.getMessage()), ()
        return True
