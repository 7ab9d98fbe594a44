"""What a server that behaves answers to a request: S3 behind CloudFront, as far as it matters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

CHUNK = 1 << 16
ACCESS_DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b"<Error><Code>AccessDenied</Code><Message>Access denied</Message></Error>"
)
NO_SUCH_KEY = ACCESS_DENIED.replace(b"AccessDenied", b"NoSuchKey").replace(b"Access denied", b"?")
Span = tuple[int, int]


@dataclass(frozen=True)
class Content:
    """A file as it is served.

    Args:
        nbytes: what the server says that it has; zeros follow where the file is shorter.
        mask: xored with every byte: another file of the same length.
        flip: the offset of one byte that arrives wrong.
    """

    path: Path
    nbytes: int
    etag: str | None
    modified: str | None
    mask: int = 0
    flip: int | None = None

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        table = bytes(byte ^ self.mask for byte in range(256))
        with self.path.open("rb", buffering=0) as file:
            file.seek(start)
            while start < stop:
                size = min(CHUNK, stop - start)
                chunk = file.read(size).ljust(size, b"\0")
                if self.mask:
                    chunk = chunk.translate(table)
                if self.flip is not None and start <= self.flip < start + size:
                    at = self.flip - start
                    chunk = chunk[:at] + bytes([chunk[at] ^ 0xFF]) + chunk[at + 1 :]
                yield chunk
                start += size


@dataclass(frozen=True)
class Ask:
    """A request for a file that is there, with a signature that holds.

    Args:
        target: path and query as they stood in the request.
        span: the bytes asked for, from start to before stop; None for all.
    """

    target: str
    content: Content
    span: Span | None

    @property
    def bounds(self) -> Span:
        return self.span or (0, self.content.nbytes)

    @property
    def nbytes(self) -> int:
        start, stop = self.bounds
        return stop - start


@dataclass(frozen=True)
class Act:
    """What happens to the connection once ``after`` bytes of a body are sent."""

    kind: Literal["reset", "close", "hang"]
    after: int
    seconds: float = 0


@dataclass(frozen=True)
class Reply:
    """A status, headers and body.

    Args:
        nbytes: Content-Length; None sends the body in chunks.
        rate: bytes a second; None for the server's own.
        surplus: sent after the body, beyond its Content-Length.
    """

    status: int
    headers: dict[str, str]
    chunks: Iterable[bytes]
    nbytes: int | None
    rate: int | None = None
    act: Act | None = None
    surplus: bytes = b""

    def without(self, *names: str) -> Reply:
        return replace(self, headers={k: v for k, v in self.headers.items() if k not in names})

    def with_headers(self, **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers=self.headers | named)


def text_reply(status: int, body: bytes, kind: str, **headers: str) -> Reply:
    return Reply(status, {"Content-Type": kind}, [body], len(body)).with_headers(**headers)


def good_reply(ask: Ask) -> Reply:
    """Answer 206 to a range and 200 to the rest."""
    content = ask.content
    start, stop = ask.bounds
    headers = {"Content-Type": "binary/octet-stream", "Accept-Ranges": "bytes"}
    headers |= {"ETag": content.etag} if content.etag else {}
    headers |= {"Last-Modified": content.modified} if content.modified else {}
    if ask.span:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.nbytes}"
    status = 206 if ask.span else 200
    return Reply(status, headers, content.chunks(start, stop), stop - start)


def asked_span(header: str | None, nbytes: int) -> Span | None:
    """Read a Range header of one range, cut at the end of the file.

    Returns:
        None where there is none, or one that a server may ignore.
    Raises:
        ValueError: it begins beyond the end.
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if not found or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    start = int(first) if first else max(0, nbytes - int(last))
    stop = min(nbytes, int(last) + 1) if first and last else nbytes
    if start >= nbytes or stop <= start:
        raise ValueError(header)
    return start, stop
