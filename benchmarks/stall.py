"""What a small chat waits beside one hostile client.

One server with the bundled demo model; one client that has a small chat again and again on a
kept-alive connection, alone and beside each kind of hostile client, which is a process of its own
with another address (127.0.0.2). Prints the 50th and 99th percentile of the chat's latency, and
the ratio to the quiet 99th percentile, which is measured before and after. A line says how many
cores the hostile client itself computed on: the machine that it shares with the server lacks them.
The kind ``busy`` only computes, and never connects: what that costs is no fault of the server.

    python benchmarks/stall.py [--kinds empties pipelining …] [--chats 500] [--tokens 8] [--nice 0]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from hostile_clients import KINDS, Address

COMES, GOES = 0.5, 1.5
"""Seconds after the hostile client has come, or gone: what it has left behind is done then."""
PATIENCE = 30.0
"""Seconds for the chats of one percentile: in a stall, few are enough."""


def attack(kind: str, address: Address, nice: int) -> None:
    """Be a hostile client."""
    os.nice(nice)
    KINDS[kind](address)
    threading.Event().wait()


class Hostile:
    """A process with a hostile client, as long as the context lasts.

    Args:
        kind: of ``KINDS``.
        nice: its priority.
    """

    def __init__(self, kind: str, address: Address, nice: int) -> None:
        self._process = multiprocessing.get_context("fork").Process(
            target=attack, args=(kind, address, nice), daemon=True
        )

    def __enter__(self) -> Hostile:
        self._process.start()
        time.sleep(COMES)
        self._began, self._computed = time.perf_counter(), self._seconds()
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.join()
        time.sleep(GOES)

    def cores(self) -> float:
        """Return how many cores it has computed on, since it has settled."""
        return (self._seconds() - self._computed) / (time.perf_counter() - self._began)

    def _seconds(self) -> float:
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class SmallChat:
    """A client with one kept-alive connection."""

    def __init__(self, address: Address, tokens: int) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=120)
        self._tokens = tokens

    def seconds(self) -> float:
        """Have one small chat; return how long it took."""
        body = {
            "messages": [{"role": "user", "content": "How do I verify it?"}],
            "max_tokens": self._tokens,
            "temperature": 0,
        }
        begun = time.perf_counter()
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = self._connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise SystemExit(f"the small chat got {response.status}: {data.decode()}")
        return time.perf_counter() - begun

    def latencies(self, count: int) -> list[float]:
        """Have small chats; return how long each took, in seconds."""
        end = time.perf_counter() + PATIENCE
        taken: list[float] = []
        while len(taken) < count and time.perf_counter() < end:
            taken.append(self.seconds())
        return taken


def percentiles(latencies: list[float]) -> tuple[float, float]:
    """Return the 50th and the 99th percentile."""
    return statistics.median(latencies), sorted(latencies)[int(0.99 * len(latencies))]


@contextlib.contextmanager
def running(*words: str) -> Iterator[Address]:
    """Run a server; yield its address."""
    command = [sys.executable, "-m", "llamakit", "serve", "--port", "0", *words]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        if "serving at" in line:
            break
    else:
        raise SystemExit("the server did not start")
    drain = threading.Thread(target=lambda: list(server.stderr or ()), daemon=True)
    drain.start()
    try:
        yield "127.0.0.1", int(line.strip().rpartition(":")[2])
    finally:
        server.kill()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--chats", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--nice", type=int, default=0, help="the hostile client's (0)")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print("kind            quiet: 50th    99th  beside: 50th    99th  ratio of 99th  its cores")
    with running() as address:
        chat = SmallChat(address, arguments.tokens)
        half = arguments.chats // 2
        chat.latencies(half)
        before = chat.latencies(half)
        for kind in arguments.kinds:
            with Hostile(kind, address, arguments.nice) as hostile:
                beside = percentiles(chat.latencies(arguments.chats))
                cores = hostile.cores()
            after = chat.latencies(half)
            quiet, before = percentiles(before + after), after
            numbers = "  ".join(f"{1e3 * value:8.1f}" for value in (*quiet, *beside))
            print(f"{kind:12} {numbers} ms {beside[1] / quiet[1]:6.2f} {cores:10.2f}", flush=True)


if __name__ == "__main__":
    main()
