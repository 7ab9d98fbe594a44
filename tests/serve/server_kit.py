"""What tests of the server share: servers to ask, in processes of their own or in threads."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
from openai import OpenAI

from llamakit.api import Llama
from llamakit.plugin_manager.registry import Entry, Source
from llamakit.serve.server import Server, listen
from llamakit.serve.server_settings import ServeSettings

QUESTION = [{"role": "user", "content": "How do I verify a checkpoint?"}]
STORY = "Once upon a time"
LONG = {"prompt": STORY, "max_tokens": 200, "sampler": "draw", "logit_bias": {"2": -100}}
"""A request whose answers do not end before they have 200 tokens."""

HTTP = httpx.Client(timeout=180, trust_env=False)


@dataclass
class Running:
    """A server that answers at a URL."""

    url: str
    lines: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host.strip("[]"), int(port)

    def openai(self, key: str = "any", **settings: Any) -> OpenAI:
        """Return the official client."""
        return OpenAI(
            base_url=f"{self.url}/v1", api_key=key, max_retries=0, http_client=HTTP, **settings
        )

    def post(self, path: str, body: Any, **settings: Any) -> httpx.Response:
        return HTTP.post(f"{self.url}{path}", json=body, **settings)

    def get(self, path: str, **settings: Any) -> httpx.Response:
        return HTTP.get(f"{self.url}{path}", **settings)

    def metric(self, name: str) -> float:
        """Return a number of ``/metrics``."""
        found = re.search(rf"^llamakit_{name} (\S+)$", self.get("/metrics").text, re.M)
        assert found, name
        return float(found[1])


@contextlib.contextmanager
def process(env: Mapping[str, str], *words: str, launcher: Sequence[str] = ()) -> Iterator[Running]:
    """Run ``llamakit serve`` in a process of its own.

    Args:
        launcher: words before ``-m llamakit``, else Python; it ends its children at a SIGTERM.
    """
    server = subprocess.Popen(
        [*(launcher or [sys.executable]), "-m", "llamakit", "serve", "--port", "0", *words],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert server.stderr is not None
    running = Running("", process=server)
    found = threading.Event()

    def read() -> None:
        for line in server.stderr or ():
            running.lines.append(line.rstrip("\n"))
            if "serving at " in line:
                running.url = line.split("serving at ")[1].strip()
                found.set()
        found.set()

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    try:
        assert found.wait(180)
        assert running.url, running.lines
        yield running
    finally:
        if launcher and server.poll() is None:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(180)
        server.kill()
        server.wait()
        reading.join(10)
        for stream in (server.stdout, server.stderr):
            assert stream is not None
            stream.close()


@contextlib.contextmanager
def thread(llama: Llama, host: str = "127.0.0.1", **settings: Any) -> Iterator[Running]:
    """Run a server in a thread of this process."""
    made = ServeSettings(port=0, **{"model_name": "demo", "grace": 0.0, **settings})
    with threaded(Server(llama, made, listen(host, 0))) as running:
        yield running


@contextlib.contextmanager
def threaded(server: Server) -> Iterator[Running]:
    """Run a server in a thread of this process, and end it."""
    running, ready = Running(""), threading.Event()

    def run() -> None:
        def tell(url: str) -> None:
            running.url = url
            ready.set()

        try:
            server.run(tell, signals=False)
        finally:
            ready.set()

    answering = threading.Thread(target=run)
    answering.start()
    try:
        assert ready.wait(180)
        assert running.url
        yield running
    finally:
        server.end()
        server.end()
        answering.join(60)
        assert not answering.is_alive()


class Held:
    """A processor that keeps the engine, or what builds it, until the test releases it."""

    numbers = itertools.count()

    def __init__(self) -> None:
        self.name = f"held-{next(self.numbers)}"
        self.calls = 0
        self._reached, self._released = threading.Event(), threading.Event()

    def wait(self) -> None:
        """Wait until the processor is at work."""
        assert self._reached.wait(180)

    def let_go(self) -> None:
        """Release it, now and whenever it is called again."""
        self._released.set()

    def _hold(self) -> None:
        self.calls += 1
        self._reached.set()
        assert self._released.wait(180)

    def work(self) -> Any:
        """Make the processor that holds when it works."""

        def process(logits: Any, rows: Any) -> Any:
            self._hold()
            return logits

        return process

    def build(self) -> Any:
        """Make a processor, holding while it is made."""
        self._hold()
        return lambda logits, _rows: logits


@contextlib.contextmanager
def held(llama: Llama, kind: Literal["work", "build"] = "work") -> Iterator[Held]:
    """Register such a processor; it is let go at the end."""
    made = Held()
    factory = getattr(made, kind)
    source = Source(made.name, "llamakit-held", "1", builtin=False)
    llama.toolkit.processors.add(Entry("processor", made.name, factory, "", source))
    try:
        yield made
    finally:
        made.let_go()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that has to happen, however slow the machine is."""
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def begin(
    running: Running,
    body: dict[str, Any],
    path: str = "/v1/completions",
    receive_buffer: int | None = None,
) -> socket.socket:
    """Ask and do not read the answer.

    Args:
        receive_buffer: bytes of the system's buffer of what is unread; None leaves it to that.
    """
    data = json.dumps(body).encode()
    with contextlib.ExitStack() as undo:
        connection = undo.enter_context(socket.socket())
        connection.settimeout(180)
        if receive_buffer is not None:  # counts if it is set before the connection is made
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(running.address)
        connection.sendall(head(path, Content_Length=str(len(data))) + data)
        undo.pop_all()
    return connection


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the connection ends."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    connection.close()
    return received


def say(address: tuple[str, int], data: bytes, timeout: float = 180) -> bytes:
    """Send bytes as they are, and return all that comes until the connection ends."""
    with socket.create_connection(address, timeout=timeout) as connection:
        connection.sendall(data)
        received = b""
        with contextlib.suppress(ConnectionResetError):  # it ended before all was read
            while piece := connection.recv(65536):
                received += piece
    return received


def head(path: str, **headers: str) -> bytes:
    """Return the head of a POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def demo_folder() -> Path:
    from llamakit import demo

    return demo.path()
