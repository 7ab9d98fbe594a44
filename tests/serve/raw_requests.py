"""Requests that no client means to send: cut, pipelined, wrongly framed, huge, odd and random.

A case is made from its number alone, so a failure can be run again.
"""

from __future__ import annotations

import gzip
import http.client
import io
import itertools
import json
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

PATHS = (
    *("/health", "/v1/models", "/metrics", "/", "/openapi.json", "/v1/completions"),
    *("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/moderations"),
    *("/tokenize", "/detokenize", "/tokenizer_info", "/v1/models/demo", "/nothing", "/v1/%00"),
)
BODIES: tuple[dict[str, Any], ...] = (
    {"prompt": "Once", "max_tokens": 1, "temperature": 0},
    {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "stream": True},
    {"input": "Once", "max_output_tokens": 1},
    {"input": ["a", "b"], "encoding_format": "float"},
    {"text": "Once upon a time"},
    {"tokens": [1, 5, 6]},
    {"prompt": "a", "max_tokens": 1, "stop": ["x"], "logit_bias": {"5": 1}, "logprobs": 2},
    {"prompt": "a", "max_tokens": 2, "response_format": {"type": "json_object"}},
    {"prompt": "a", "max_tokens": 1, "guided_regex": "[ab]+", "n": 2, "seed": 3},
)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 1e308, 10**30, "", "a", "\ud800", "\0", "x" * 5000, [], {}, [[]]),
    *([None], {"a": {}}, [1] * 2000, {str(number): number for number in range(500)}),
    *("json_object", [{"role": "tool"}], [{"role": "user", "content": [{"type": "image_url"}]}]),
)
LINES = (
    *(b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999999999999"),
    *(b"Content-Length: 5, 6", b"Content-Length: 0x10", b"Transfer-Encoding: chunked"),
    *(b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity", b"Expect: 100-continue"),
    *(b"Expect: nothing", b"Upgrade: websocket\r\nConnection: Upgrade", b"Upgrade: h2c"),
    *(b"Content-Encoding: gzip", b"Content-Encoding: br", b"Content-Type: text/\xff"),
    *(b"Host:", b"Host: a\r\nHost: b", b"Host: evil.example", b": no name", b"no colon"),
    *(
        b"Na me: x",
        b"Name : x",
        b"X: \0",
        b"X: a\rb",
        b"X: a\nb",
        b" folded: x",
        b"X: " + b"a" * 9000,
    ),
    *(b"Authorization: Bearer " + b"a" * 3000, b"Origin: null", b"Cookie: " + b"a=b; " * 900),
    *(b"X-Forwarded-For: " + b"1.2.3.4, " * 500, b"X-Request-ID: \x1b[2J", b"Range: bytes=0-"),
    b"\r\n".join(b"X-%d: %d" % (number, number) for number in range(300)),
)
STARTS = (
    *(b"GET /health HTTP/0.9", b"GET /health HTTP/2.0", b"GET /health", b"GET  /health HTTP/1.1"),
    *(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0", b"get /health HTTP/1.1"),
    *(b"GET http://evil.example/health HTTP/1.1", b"OPTIONS * HTTP/1.1", b"TRACE / HTTP/1.1"),
    *(b"CONNECT evil.example:443 HTTP/1.1", b"GET /" + b"a" * 70_000 + b" HTTP/1.1", b"\0\0\0\0"),
    *(b"GET /../../etc/passwd HTTP/1.1", b"GET /%2e%2e/%ff HTTP/1.1", b"GET /\xff\xfe HTTP/1.1"),
    *(b"POST /v1/completions?a=%00&a=b HTTP/1.1", b"X" * 500 + b" / HTTP/1.1", b"SSH-2.0-x"),
)
WAIT = 0.5
"""Seconds for an answer: of what is cut, none comes, and the connection is closed by this side."""


@dataclass(frozen=True)
class Case:
    """Pieces that are sent one after the other, and how the connection ends."""

    pieces: tuple[bytes, ...]
    ending: str
    """``read`` what comes, ``half``: end the sending side first, or ``reset`` at once."""


def case(number: int) -> Case:
    """Make a case from its number."""
    random = Random(f"request {number}")
    data = b"".join(_request(random) for _ in range(random.choice((1, 1, 1, 1, 2, 5))))
    if random.random() < 0.3:
        data = _mutated(random, data)
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.choice((0, 0, 0, 1, 3))))
    edges = [0, *cuts, len(data)]
    pieces = tuple(data[start:stop] for start, stop in itertools.pairwise(edges))
    return Case(pieces, random.choice(("read", "read", "read", "half", "reset")))


def _request(random: Random) -> bytes:
    body = _body(random) if random.random() < 0.8 else b""
    method = b"POST" if body else random.choice((b"GET", b"GET", b"HEAD", b"PUT", b"DELETE"))
    start = b"%s %s HTTP/1.1" % (method, random.choice(PATHS).encode())
    if random.random() < 0.15:
        start = random.choice(STARTS)
    lines = [start, b"Host: localhost", b"Content-Type: application/json"]
    if random.random() < 0.25:
        lines += random.sample(LINES, random.choice((1, 1, 2, 4)))
    if random.random() < 0.3:
        lines.append(b"Transfer-Encoding: chunked")
        body = _chunked(random, body)
    elif body:
        length = random.choice((len(body),) * 8 + (0, 1, len(body) - 1, len(body) + 1))
        lines.append(b"Content-Length: %d" % length)
    random.random() < 0.1 and random.shuffle(lines)
    return b"\r\n".join([*lines, b"", body])


def _body(random: Random) -> bytes:
    if random.random() < 0.1:
        return random.randbytes(random.choice((1, 10, 1000, 20_000)))
    if random.random() < 0.05:
        return random.choice((b"[", b'{"a":', b"{")) * random.choice((10, 1000, 60_000))
    values = dict(random.choice(BODIES))
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        values[random.choice([*values, "stream", "n", "tools", "user"])] = random.choice(VALUES)
    body = json.dumps(values).encode()
    return gzip.compress(body) if random.random() < 0.05 else body


def _chunked(random: Random, body: bytes) -> bytes:
    size = random.choice((1, 7, 100, 5000))
    parts = [body[start : start + size] for start in range(0, min(len(body), 200 * size), size)]
    sizes = [b"%x" % len(part) for part in parts]
    if parts and random.random() < 0.3:
        wrong = (b"-1", b"0", b"zz", b"FFFFFFFFFFFFFFFFFF", b"", b"5;" + b"a" * 9000, b"0x5")
        sizes[random.randrange(len(sizes))] = random.choice(wrong)
    data = b"".join(
        length + b"\r\n" + part + b"\r\n" for length, part in zip(sizes, parts, strict=True)
    )
    return data + random.choice((b"0\r\n\r\n",) * 6 + (b"0\r\nX: y\r\n\r\n", b"", b"0\r\n"))


def _mutated(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        place = random.randrange(len(changed) + 1)
        kind = random.choice(("cut", "flip", "insert", "remove"))
        if kind == "cut":
            del changed[max(1, place) :]
        elif kind == "flip" and place < len(changed):
            changed[place] ^= 1 << random.randrange(8)
        elif kind == "insert":
            junk = (b"\0", b"\r\n", b"\n", b"\r\n\r\n", b"\xff", b" ", b":", b"0", b"9" * 30)
            changed[place:place] = random.choice(junk)
        else:
            del changed[place : place + random.choice((1, 2, 16))]
    return bytes(changed)


def answer(address: tuple[str, int], sent: Case) -> bytes:
    """Send a case; return what came until the connection ended, or nothing more came."""
    received = b""
    with socket.create_connection(address, timeout=60) as connection, suppress(ConnectionError):
        for piece in sent.pieces:
            connection.sendall(piece)
        if sent.ending == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return b""
        if sent.ending == "half":
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(WAIT)
        with suppress(TimeoutError):
            while piece := connection.recv(65536):
                received += piece
    return received


class _Bytes(io.BytesIO):
    """Received bytes, as the socket that ``http.client`` reads."""

    def makefile(self, _mode: str) -> _Bytes:
        return self

    def close(self) -> None:
        """Stay open: the next answer follows."""


def answers(received: bytes) -> list[tuple[int, str, bytes]]:
    """Split what was received into answers: status, type and body; a last one may be cut.

    Raises:
        http.client.HTTPException: it is no answer.
    """
    found, source = [], _Bytes(received)
    while source.tell() < len(received):
        response = http.client.HTTPResponse(source)  # type: ignore[arg-type]
        with suppress(http.client.IncompleteRead):
            response.begin()
            found.append((response.status, response.getheader("content-type", ""), response.read()))
    return found
