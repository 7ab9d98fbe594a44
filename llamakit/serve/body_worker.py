"""The process that reads large request bodies, so that the server's own threads need not.

A megabyte of JSON can take a second of Python, which no other thread can use meanwhile: neither the
event loop, nor the model between its kernels. This process has the lowest priority, and as much
memory as the largest body needs. Imports nothing heavy. It ends with its standard input.
"""

from __future__ import annotations

import json
import os
import sys
from typing import IO, Any

from llamakit.serve.api_errors import ApiError
from llamakit.serve.body_check import BodyLimits, checked_body

PREFIX = 8
"""Bytes of a message's length."""
NBYTES, NBYTES_A_BYTE = 128 << 20, 64
"""Memory: of Python itself, and for each byte of a body; an object takes 32 for one of its own."""


def main(limits: str) -> None:
    """Read bodies until there are no more.

    Args:
        limits: JSON of ``BodyLimits``.
    """
    allowed = BodyLimits(**json.loads(limits))  # noqa: TID251 - of the parent
    if hasattr(os, "nice"):
        os.nice(19)
    _limit_memory(NBYTES + NBYTES_A_BYTE * allowed.nbytes)
    try:
        while True:
            encoding, path, data = (_read(sys.stdin.buffer) for _ in range(3))
            _write(sys.stdout.buffer, reply(data, encoding.decode(), path.decode(), allowed))
    except (EOFError, OSError):  # the other process has ended
        os._exit(0)


def reply(data: bytes, encoding: str, path: str, limits: BodyLimits) -> bytes:
    """Return what ``BodyProcess`` parses: the body, or what is wrong with it."""
    try:
        body = checked_body(data, encoding, path, limits)
        answer: dict[str, Any] = {"body": body, "ignored": body.ignored}
    except ApiError as error:
        answer = {
            "status": error.status,
            "message": str(error),
            "param": error.param,
            "code": error.code,
            "headers": error.headers,
        }
    return json.dumps(answer, ensure_ascii=False).encode()


def _limit_memory(nbytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: the size of the body is all there is
        return
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = nbytes if hard == resource.RLIM_INFINITY else min(nbytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _read(stream: IO[bytes]) -> bytes:
    prefix = stream.read(PREFIX)
    content = stream.read(int.from_bytes(prefix, "big"))
    if len(prefix) < PREFIX:
        raise EOFError
    return content


def _write(stream: IO[bytes], content: bytes) -> None:
    stream.write(len(content).to_bytes(PREFIX, "big") + content)
    stream.flush()
