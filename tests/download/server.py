"""A real HTTP/1.1 server on loopback that can be told to misbehave.

    with Server(folder) as server:
        server.fault(reset(after=1000), path="*/consolidated.*", times=2)
        ...

It stands for S3 behind CloudFront: HEAD is refused, a signature holds byte for byte or the answer
is 403, a signature that ends does not end the bodies that are under way.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from download_kit import signed_query
from faults import EXPIRED_PAGE, Fault
from replies import (
    ACCESS_DENIED,
    NO_SUCH_KEY,
    Ask,
    Content,
    Reply,
    asked_span,
    good_reply,
    text_reply,
)
from sending import HangUpError, Pace, Sender

DEFAULT_QUERY = signed_query("http://127.0.0.1:*")
LOGIN = "/login"
NEVER_ENDED = "threads of the test server did not end"


@dataclass
class Served:
    """One request and what became of it; ``status`` and ``nbytes`` change while it is answered.

    Args:
        range: the bytes asked for, start and stop (exclusive); None for all or for none readable.
        nbytes: bytes of the body that the kernel took; they may still lie in a buffer.
        connection: a number for each TCP connection.
        fault: the name of the fault that it met.
    """

    method: str
    path: str
    query_ok: bool
    range: tuple[int, int] | None
    if_range: str | None
    if_match: str | None
    connection: int
    headers: dict[str, str]
    status: int = 0
    nbytes: int = 0
    fault: str | None = None


@dataclass
class _Scheduled:
    fault: Fault
    path: str
    times: int
    skip: int


class Server:
    """Serves a folder while its ``with`` block lasts.

    Args:
        query: the signature that holds; an empty one stands for a server without signatures.
        head: the status that HEAD gets.
        rate: bytes a second for each connection. A kill loses what is in the kernel's buffers:
            with a rate they stay nearly empty.
    """

    def __init__(
        self, folder: Path, *, query: str = DEFAULT_QUERY, head: int = 403, rate: int | None = None
    ) -> None:
        self.folder = folder.resolve()
        self.head = head
        self.rate = rate
        self.most_connections = 0
        self._query: str | None = query
        self._shown = query
        self._requests: list[Served] = []
        self._nbytes = 0
        self._most_nbytes: int | None = None
        self._versions: dict[str, tuple[int, int]] = {}
        self._faults: list[_Scheduled] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._numbers = itertools.count()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Server:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.settimeout(0.05)
        self.base = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with self._changed:
            for connection in [self._listener, *self._open]:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)
        self._listener.close()
        assert not any(thread.is_alive() for thread in self._threads), NEVER_ENDED

    @property
    def link(self) -> str:
        """The link as its user has it; still the old one after a revocation without a new one."""
        return f"{self.base}/*?{self._shown}" if self._shown else f"{self.base}/*"

    @property
    def nbytes(self) -> int:
        """Bytes of the bodies of all 200 and 206 so far."""
        with self._changed:
            return self._nbytes

    @property
    def requests(self) -> list[Served]:
        """All requests so far, in the order of their arrival."""
        with self._changed:
            return list(self._requests)

    def fault(self, fault: Fault, *, path: str = "*", times: int = 1, skip: int = 0) -> None:
        """Let the next requests misbehave that match and that the fault can show itself in."""
        with self._changed:
            self._faults.append(_Scheduled(fault, path, times, skip))

    def revoke(self, query: str | None = None) -> None:
        """Refuse the signature from the next request on, and take the new one if there is one."""
        self._query = query
        self._shown = query or self._shown

    def touch(self, path: str, *, other_bytes: bool = True) -> None:
        """Let a file be another one from now on: another ETag, and other bytes unless told not."""
        name = path.lstrip("/")
        version, mask = self._versions.get(name, (0, 0))
        self._versions[name] = version + 1, (mask % 255 + 1 if other_bytes else mask)

    def etag_of(self, path: str) -> str:
        etag = self._content(path).etag
        assert etag is not None
        return etag

    def hold(self, nbytes: int) -> None:
        """Send no more bodies once they have had so many bytes, until ``release``."""
        with self._changed:
            self._most_nbytes = nbytes

    def release(self) -> None:
        """Send on."""
        with self._changed:
            self._most_nbytes = None
            self._changed.notify_all()

    def wait_for(self, nbytes: int, timeout: float) -> None:
        """Wait until bodies have had so many bytes."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._nbytes >= nbytes, timeout):
                raise TimeoutError(f"{self._nbytes} of {nbytes} bytes after {timeout} s")

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:  # shut down
                return
            if self._take_fault(None, "") is not None:
                connection.close()
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            with self._changed:
                self._open.add(connection)
                self.most_connections = max(self.most_connections, len(self._open))
            self._start(self._converse, connection, next(self._numbers))

    def _converse(self, connection: socket.socket, number: int) -> None:
        """Answer one request after the other until one side ends the connection."""
        pace = Pace()
        with contextlib.suppress(HangUpError, OSError), connection.makefile("rb") as lines:
            while not self._stopping.is_set() and (line := lines.readline()):
                method, target, _ = line.decode("latin-1").split()
                headers = dict(http.client.parse_headers(lines).items())
                served, reply = self._take(number, method, target, headers)
                self._send(connection, served, reply, pace)
                if headers.get("Connection", "").lower() == "close":
                    break
        with self._changed:
            self._open.discard(connection)
        connection.close()

    def _take(
        self, number: int, method: str, target: str, headers: dict[str, str]
    ) -> tuple[Served, Reply]:
        path, _, query = target.partition("?")
        names = {name.lower(): value for name, value in headers.items()}
        served = Served(
            method,
            unquote(path),
            query == self._query,
            None,
            names.get("if-range"),
            names.get("if-match"),
            number,
            headers,
        )
        with self._changed:
            self._requests.append(served)
        reply = self._reply(served, target, names.get("range"))
        served.status = reply.status
        return served, replace(reply, rate=reply.rate or self.rate)

    def _send(self, connection: socket.socket, served: Served, reply: Reply, pace: Pace) -> None:
        count, allowed = partial(self._count, served), partial(self._allowed, served)
        sender = Sender(connection, reply, count, allowed, self._changed, pace, self._stopping)
        sender.send_head()
        if served.method != "HEAD":
            sender.send_body()

    def _reply(self, served: Served, target: str, wanted: str | None) -> Reply:
        if served.path == LOGIN:
            return text_reply(200, EXPIRED_PAGE, "text/html; charset=utf-8")
        if not served.query_ok or (served.method == "HEAD" and self.head != 200):
            code = self.head if served.query_ok else 403
            return text_reply(code, ACCESS_DENIED, "text/xml", Server="CloudFront")
        try:
            content = self._content(served.path)
            served.range = asked_span(wanted, content.nbytes)
        except FileNotFoundError:
            return text_reply(404, NO_SUCH_KEY, "application/xml")
        except ValueError:
            size = f"bytes */{content.nbytes}"
            return text_reply(416, ACCESS_DENIED, "application/xml", Content_Range=size)
        if served.if_match not in {None, "*", content.etag}:
            return text_reply(412, ACCESS_DENIED, "application/xml")
        same = served.if_range in {None, content.etag, content.modified}
        return self._answer(Ask(target, content, served.range if same else None), served)

    def _answer(self, ask: Ask, served: Served) -> Reply:
        """Answer well, or with a fault whose turn it is."""
        fault = self._take_fault(ask, served.path) if served.method == "GET" else None
        if fault is None or fault.answer is None:
            return good_reply(ask)
        served.fault = fault.name
        return fault.answer(ask)

    def _content(self, path: str) -> Content:
        name = path.lstrip("/")
        file = (self.folder / name).resolve()
        if not file.is_file() or self.folder not in file.parents:
            raise FileNotFoundError(name)
        found = file.stat()
        version, mask = self._versions.get(name, (0, 0))
        facts = f"{name} {found.st_size} {found.st_mtime_ns} {version}"
        parts = -(-found.st_size // (16 << 20))
        etag = f'"{hashlib.md5(facts.encode()).hexdigest()}-{parts}"'
        modified = formatdate(int(found.st_mtime) + version, usegmt=True)
        return Content(file, found.st_size, etag, modified, mask)

    def _take_fault(self, ask: Ask | None, path: str) -> Fault | None:
        """Return the first fault whose turn it is; without a request: at the connection."""
        with self._changed:
            for entry in self._faults:
                fault = entry.fault
                if entry.times == 0 or (fault.answer is None) != (ask is None):
                    continue
                if ask is not None and not (fnmatch(path, entry.path) and fault.wants(ask)):
                    continue
                if self._nbytes < fault.served:
                    continue
                if entry.skip:
                    entry.skip -= 1
                    continue
                entry.times -= 1
                return fault
        return None

    def _allowed(self, served: Served, nbytes: int) -> int:
        if self._most_nbytes is None or served.status not in {200, 206}:
            return nbytes
        return max(0, min(nbytes, self._most_nbytes - self._nbytes))

    def _count(self, served: Served, nbytes: int) -> None:
        served.nbytes += nbytes
        if served.status in {200, 206}:
            self._nbytes += nbytes
            self._changed.notify_all()
