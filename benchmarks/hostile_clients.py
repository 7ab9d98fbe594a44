"""The hostile clients of ``stall.py``: each keeps a server busy in a way of its own."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

Address = tuple[str, int]
HOSTILE = "127.0.0.2"
MB = 1 << 20


def post(path: str, body: object, *headers: str) -> bytes:
    """Return a request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    head = "\r\n".join([*lines, f"Content-Length: {len(data)}", *headers, "", ""])
    return head.encode() + data


def completion(**fields: Any) -> bytes:
    return post("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 200, **fields})


def chunked(data: bytes, size: int) -> bytes:
    pieces = (data[start : start + size] for start in range(0, len(data), size))
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


def get(path: str, method: str = "GET", *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def connect(address: Address) -> socket.socket:
    return socket.create_connection(address, 30, source_address=(HOSTILE, 0))


def read_response(connection: socket.socket) -> bytes:
    """Read one response, up to its Content-Length or the last chunk."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(MB)
        if not piece:
            raise ConnectionResetError
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    while len(body) < int(length[1]) if length else not body.endswith(b"0\r\n\r\n"):
        piece = connection.recv(MB)
        if not piece:
            raise ConnectionResetError
        body += piece
    return head


def ask(request: bytes, connections: int = 10) -> Callable[[Address], None]:
    """Send a request again and again, on several connections."""

    def work(address: Address) -> None:
        while True:
            with contextlib.suppress(OSError), connect(address) as connection:
                while True:
                    connection.sendall(request)
                    read_response(connection)

    return lambda address: threaded(work, address, connections)


def threaded(work: Callable[[Address], None], address: Address, count: int) -> None:
    threads = [threading.Thread(target=work, args=(address,)) for _ in range(count)]
    for thread in threads:
        thread.start()


def busy(_address: Address) -> None:
    """Compute, and never connect: what any program costs that shares the machine."""
    while True:
        pass


def idle(address: Address) -> None:
    """Hold 300 connections that say nothing; open each again when it is closed."""

    def work(address: Address) -> None:
        while True:
            with contextlib.suppress(OSError), connect(address) as connection:
                connection.settimeout(None)
                connection.recv(1)
            time.sleep(0.05)

    threading.stack_size(128 << 10)
    threaded(work, address, 300)


def dripping(start: bytes, piece: bytes) -> Callable[[Address], None]:
    """Send a request byte by byte on 100 connections."""

    def work(address: Address) -> None:
        while True:
            with contextlib.suppress(OSError), connect(address) as connection:
                connection.sendall(start)
                while True:
                    connection.sendall(piece)
                    time.sleep(0.1)

    return lambda address: threaded(work, address, 100)


def half_read(address: Address) -> None:
    """Ask for streams and read their first bytes only."""
    request = completion(stream=True, n=2, logprobs=5)

    def work(address: Address) -> None:
        while True:
            with contextlib.suppress(OSError), connect(address) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.sendall(request)
                connection.recv(100)
                time.sleep(2)

    threaded(work, address, 50)


def reconnecting(request: bytes) -> Callable[[Address], None]:
    """Connect, send, and close without reading."""

    def work(address: Address) -> None:
        while True:
            with contextlib.suppress(OSError), connect(address) as connection:
                connection.sendall(request)

    return lambda address: threaded(work, address, 4)


def pipelining(address: Address) -> None:
    """Send requests without waiting for the responses, which another thread reads."""
    request = get("/health") * 100

    def work(address: Address) -> None:
        with connect(address) as connection:

            def read() -> None:
                while connection.recv(MB):
                    pass

            threading.Thread(target=read).start()
            while True:
                connection.sendall(request)

    threaded(work, address, 4)


SCHEMA = {
    "type": "object",
    "properties": {
        f"field_{number}": {"type": "string", "pattern": "^(a|b|c){1,40}[0-9]{1,40}$"}
        for number in range(400)
    },
}
GRAMMAR = "root ::= " + " | ".join(f'"word {number}" root' for number in range(1500)) + ' | ""'
WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")

KINDS: dict[str, Callable[[Address], None]] = {
    "busy": busy,
    "empties": ask(post("/v1/completions", {"prompt": [""] * 250_000})),
    "numbers": ask(post("/v1/completions", {"prompt": [1] * 300_000})),
    "one-string": ask(post("/v1/completions", {"prompt": "a" * (MB - 100)})),
    "prose": ask(post("/v1/completions", {"prompt": "How do I reshard it? " * 49_000})),
    "chat-prose": ask(
        post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Why? " * 200_000}]})
    ),
    "tokenize": ask(post("/tokenize", {"text": "How do I reshard it? " * 49_000})),
    "detokenize": ask(post("/detokenize", {"tokens": [300] * 200_000})),
    "parts": ask(
        post(
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 25_000}]},
        )
    ),
    "objects": ask(post("/v1/completions", {"metadata": {str(n): {} for n in range(80_000)}})),
    "lists": ask(post("/v1/completions", b'{"prompt":[' + b"[]," * 340_000 + b"[]]}")),
    "small-lists": ask(post("/v1/completions", b'{"prompt":[' + b"[1]," * 900 + b"[]]}")),
    "deep": ask(post("/v1/completions", b"[" * MB)),
    "base64": ask(
        post("/v1/completions", {"prompt": random.Random(0).randbytes(MB * 3 // 8).hex()})
    ),
    "tiny-chunks": ask(chunked(b'{"prompt":"' + b"a" * 500_000 + b'"}', 1)),
    "schema": ask(
        completion(
            response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
        )
    ),
    "grammar": ask(completion(processors=[{"name": "grammar", "options": {"text": GRAMMAR}}])),
    "logit-bias": ask(completion(logit_bias={str(n): 1 for n in range(1024)})),
    "stop-strings": ask(completion(n=16, stop=["a" * 999 + chr(97 + n) for n in range(16)])),
    "huge-n": ask(completion(n=16)),
    "long-prompts": ask(completion(prompt=[300] * 240, max_tokens=1)),
    "logprobs": ask(completion(n=16, logprobs=20)),
    "streams": ask(completion(n=16, stream=True)),
    "half-read": half_read,
    "idle": idle,
    "slow-heads": dripping(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX: ", b"a"),
    "slow-bodies": dripping(post("/v1/completions", b" " * 100_000)[:-100_000], b" "),
    "reconnects": reconnecting(get("/health")),
    "abandoned": reconnecting(completion(n=16)),
    "pipelining": pipelining,
    "health": ask(get("/health"), 50),
    "head": ask(get("/health", "HEAD", "Connection: close"), 50),
    "options": ask(get("/v1/models", "OPTIONS"), 50),
    "websockets": ask(get("/", "GET", *WEBSOCKET), 50),
    "long-paths": ask(get("/" + "a" * 60_000), 10),
    "openapi": ask(get("/openapi.json"), 10),
    "described": ask(get("/v1/llamakit/options"), 10),
    "metrics": ask(get("/metrics"), 10),
}
