"""Puts a reply on a connection: at its pace, and with what is to happen to the connection."""

from __future__ import annotations

import array
import fcntl
import http.client
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

from replies import Act, Reply

ACK_SECONDS = 2
UNREAD_NBYTES = 1 << 16
"""At a rate, so much at most waits for the client: a kill costs no more, however slow it is."""


class HangUpError(Exception):
    """The connection ends here."""


class Pace:
    """When a connection may send more: no pause between two requests saves up for later."""

    def __init__(self) -> None:
        self._free = 0.0

    def take(self, nbytes: int, rate: int) -> float:
        """Return the moment at which so many bytes may go."""
        self._free = max(self._free, time.monotonic()) + nbytes / rate
        return self._free


class Sender:
    """Sends one reply.

    Args:
        count: is told of the bytes of the body, as the kernel takes them, under ``lock``.
        allowed: says how many bytes of the body may go now, under ``lock``.
        pace: the connection's.
        stopping: ends all waiting.
    """

    def __init__(
        self,
        connection: socket.socket,
        reply: Reply,
        count: Callable[[int], None],
        allowed: Callable[[int], int],
        lock: threading.Condition,
        pace: Pace,
        stopping: threading.Event,
    ) -> None:
        self._connection = connection
        self._reply = reply
        self._count = count
        self._allowed = allowed
        self._lock = lock
        self._pace = pace
        self._stopping = stopping
        self._sent = 0

    def send_head(self) -> None:
        reply = self._reply
        length = {"Transfer-Encoding": "chunked"}
        if reply.nbytes is not None:
            length = {"Content-Length": str(reply.nbytes)}
        fields = {"Date": formatdate(usegmt=True), "Server": "AmazonS3"} | reply.headers | length
        lines = [f"HTTP/1.1 {reply.status} {http.client.responses.get(reply.status, '')}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self._connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def send_body(self) -> None:
        act = self._reply.act
        for chunk in self._reply.chunks:
            rest = chunk
            if act and act.after < self._sent + len(chunk):
                cut = act.after - self._sent
                self._frame(chunk[:cut])
                self._perform(act)
                rest, act = chunk[cut:], None
            self._frame(rest)
        if self._reply.nbytes is None:
            self._connection.sendall(b"0\r\n\r\n")
        self._connection.sendall(self._reply.surplus)

    def _frame(self, data: bytes) -> None:
        if self._reply.nbytes is not None or not data:
            self._push(data)
            return
        self._connection.sendall(b"%x\r\n" % len(data))
        self._push(data)
        self._connection.sendall(b"\r\n")

    def _push(self, data: bytes) -> None:
        rate = self._reply.rate
        left = memoryview(data)
        while left:
            piece = left
            if rate:
                piece = left[: max(1, rate // 50)]
                self._wait(self._pace.take(len(piece), rate))
                while _unread(self._connection) > UNREAD_NBYTES:
                    self._wait(time.monotonic() + 0.005)
            size = self._send_some(piece)
            left = left[size:]
            self._sent += size

    def _send_some(self, piece: memoryview) -> int:
        """Send what the kernel takes at once; count it before anybody can have received it."""
        while True:
            with self._lock:
                while not (most := self._allowed(len(piece))):
                    self._lock.wait(0.05)
                    self._wait(0)
                try:
                    size = self._connection.send(piece[:most], socket.MSG_DONTWAIT)
                except BlockingIOError:
                    size = 0
                self._count(size)
            if size:
                return size
            select.select([], [self._connection], [])

    def _wait(self, until: float) -> None:
        if self._stopping.wait(max(0, until - time.monotonic())):
            raise HangUpError

    def _perform(self, act: Act) -> None:
        if act.kind == "hang":
            self._hang(act.seconds)
            return
        if act.kind == "reset":
            self._wait_for_acks()
            linger = struct.pack("ii", 1, 0)  # close() sends RST
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        raise HangUpError

    def _hang(self, seconds: float) -> None:
        """Wait, but no longer than the client does."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._wait(time.monotonic() + min(left, 0.05))
            readable, _, _ = select.select([self._connection], [], [], 0)
            if readable and not self._connection.recv(1, socket.MSG_PEEK):
                raise HangUpError

    def _wait_for_acks(self) -> None:
        """Let the client's kernel have what was sent before: RST throws away the rest."""
        until = time.monotonic() + ACK_SECONDS
        waiting = array.array("i", [1])
        while time.monotonic() < until:
            fcntl.ioctl(self._connection, termios.TIOCOUTQ, waiting)
            if not waiting[0]:
                return
            self._wait(time.monotonic() + 0.001)


def _unread(connection: socket.socket) -> int:
    """Return how many bytes the client's kernel holds that the client has not read."""
    try:
        ends = connection.getpeername()[1], connection.getsockname()[1]
        table = Path("/proc/net/tcp").read_text().splitlines()
    except OSError:
        return 0
    client, ours = (f"0100007F:{port:04X}" for port in ends)
    for local, remote, _, queues in (line.split()[1:5] for line in table[1:]):
        if (local, remote) == (client, ours):
            return int(queues.partition(":")[2], 16)
    return 0
