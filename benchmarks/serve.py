"""What the server's batching is worth, beside the servers of vLLM and transformers.

Each server runs the same weights in float32, one after the other and several times over; as many
clients as told have strings continued over kept-alive connections with TCP_NODELAY (httpx sets it),
each as soon as its last one is answered. One client is one by one: the same engine without
batching. Prints answered tokens a second and, at the end, llamakit's ratio to the best peer, from
medians.

    python benchmarks/serve.py [--clients 1 8 32] [--tokens 64] [--rounds 3] [--model FOLDER]
        [--vllm PYTHON] [--llamakit-options "--compile"] [--json FILE]

vLLM's CPU build runs where ``--vllm`` names an interpreter that has it (``benchmarks/engines.py``
says how to make one), compiled as it does by default: its first start takes minutes.

``--llamakit-options``, once or several times, measures llamakit with these options as well.

``transformers serve`` needs its own extra: ``pip install 'transformers[serving]'``; without it only
llamakit's own ratios are printed. Its ``--continuous-batching`` is not used: on a CPU one
request got no answer within 15 s in one try.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

WANTED = {1: 1.5, 8: 1.2, 32: 1.1}
"""Of the best peer's rate, by the number of clients."""
PROMPTS = ("Once upon a time", "One day, a little frog", "In a small town by the sea")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(words: list[str], port: int, log: Path) -> Iterator[str]:
    """Run a server until the block ends; return its address."""
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        server = subprocess.Popen(words, stdout=output, stderr=output, env={
            **os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
        })  # fmt: skip
        try:
            deadline = time.monotonic() + 600
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                        break
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{words[:3]} did not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.2)
            yield url
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(30)
            server.kill()


def ask(http: httpx.Client, url: str, model: str, number: int, tokens: int) -> int:
    """Have one text continued; return how many tokens the answer has."""
    body = {
        "model": model,
        "prompt": PROMPTS[number % len(PROMPTS)],
        "max_tokens": tokens,
        "temperature": 0,
    }
    answer = http.post(f"{url}/v1/completions", json=body)
    answer.raise_for_status()
    return int(answer.json()["usage"]["completion_tokens"])


def speed(url: str, model: str, clients: int, asked: int, tokens: int) -> float:
    """Return answered tokens a second, of all clients together."""
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    with (
        httpx.Client(timeout=600, trust_env=False, limits=limits) as http,
        ThreadPoolExecutor(clients) as pool,
    ):
        start = time.perf_counter()
        counts = pool.map(lambda number: ask(http, url, model, number, tokens), range(asked))
        return sum(counts) / (time.perf_counter() - start)


@dataclass(frozen=True)
class Server:
    """One server: the words that start it, its port and the name that it calls the model."""

    words: list[str]
    port: int
    model: str


def servers(
    model: Path, exported: Path, most: int, vllm: Path | None, variants: Sequence[str]
) -> dict[str, Server]:
    """Return the servers by name: llamakit, with each variant of its options, and the peers."""
    known = {}
    for options in ("", *variants):
        port = free_port()
        words = [sys.executable, "-m", "llamakit", "serve", "-m", str(model), "--dtype", "float32",
                 "--port", str(port), "--slots", str(most), "--max-seq-len", "256",
                 *shlex.split(options)]  # fmt: skip
        known[f"llamakit {options}".strip()] = Server(words, port, model.name)
    if find_spec("fastapi"):
        port = free_port()
        start = "from transformers.cli.transformers import main; main()"
        words = [sys.executable, "-c", start, "serve", str(exported), "--port", str(port),
                 "--dtype", "float32", "--device", "cpu"]  # fmt: skip
        known["transformers"] = Server(words, port, str(exported))
    else:
        print("transformers is left out: pip install 'transformers[serving]'")
    if vllm:
        port = free_port()
        words = [str(vllm.with_name("vllm")), "serve", str(exported), "--port", str(port),
                 "--host", "127.0.0.1", "--dtype", "float32", "--max-num-seqs", str(most),
                 "--max-model-len", "256", "--gpu-memory-utilization", "0.1",
                 "--no-enable-log-requests"]  # fmt: skip
        known["vllm"] = Server(words, port, str(exported))
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, help="default: the bundled demo model")
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", help="has vLLM's CPU build")
    parser.add_argument(
        "--llamakit-options", action="append", default=[], metavar="OPTIONS",
        help="measure llamakit with these options as well",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    arguments = parser.parse_args()
    from llamakit import demo

    model = (arguments.model or demo.path()).resolve()
    found: Rates = {}
    with tempfile.TemporaryDirectory() as name:
        exported = Path(name) / "exported"
        subprocess.run(
            [sys.executable, "-m", "llamakit", "export", str(model), str(exported)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        known = servers(
            model,
            exported,
            max(arguments.clients),
            arguments.vllm,
            arguments.llamakit_options,
        )
        for number in range(arguments.rounds):
            for server in list(known)[:: -1 if number % 2 else 1]:
                try:
                    with running(
                        known[server].words, known[server].port, Path(name) / "log"
                    ) as url:
                        for clients, rate in measured(url, known[server].model, arguments):
                            found.setdefault((server, clients), []).append(rate)
                            print(f"  {server}, {clients} clients: {rate:.1f}", flush=True)
                except (SystemExit, httpx.HTTPError) as error:
                    print(f"{server}: {error}", flush=True)
            if arguments.json:
                write_json(arguments.json, found)
    report(found)


def measured(url: str, model: str, arguments: argparse.Namespace) -> Iterator[tuple[int, float]]:
    """Yield answered tokens a second for each number of clients."""
    speed(url, model, 1, 2, 8)  # warm
    for clients in arguments.clients:
        yield clients, speed(url, model, clients, max(8, 4 * clients), arguments.tokens)


Rates = dict[tuple[str, int], list[float]]
"""Answered tokens a second of each round, by server and number of clients."""


def report(found: Rates) -> None:
    """Print medians, what batching is worth, and llamakit's ratio to the best peer."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for (server, count), rates in found.items():
        spread = f"({min(rates):.1f} to {max(rates):.1f})"
        rate = statistics.median(rates)
        print(f"{server:24}{count:3} clients {rate:9.1f} tokens/s  {spread}")
    print(
        f"\n{'':24}clients{'llamakit':>10}{'to one':>8}  {'best peer':20}{'ratio':>6}{'wanted':>8}"
    )
    for row in final_rows(found):
        one = f"{row['to_one']:8.2f}" if row["to_one"] else f"{'':8}"
        print(f"{row['server']:24}{row['clients']:7}{row['llamakit']:10.1f}{one}", end="  ")
        if not row["peer"]:
            print("no peer was measured")
            continue
        wanted = f"{row['wanted']:8.2f}" if row["wanted"] else f"{'':8}"
        missed = "  missed" if row["wanted"] and row["ratio"] < row["wanted"] else ""
        peer = f"{row['peer']} {row['best']:.1f}"
        print(f"{peer:20}{row['ratio']:6.2f}{wanted}{missed}")


def final_rows(found: Rates) -> list[dict[str, Any]]:
    """Compare each llamakit with the best peer, for each number of clients."""
    medians = {key: statistics.median(rates) for key, rates in found.items()}
    rows = []
    for (server, count), rate in medians.items():
        if not server.startswith("llamakit"):
            continue
        peers = {
            name: theirs
            for (name, clients), theirs in medians.items()
            if clients == count and not name.startswith("llamakit")
        }
        peer = max(peers, key=lambda name: peers[name], default="")
        rows.append({
            "server": server,
            "clients": count,
            "llamakit": rate,
            "to_one": rate / medians[server, 1] if (server, 1) in medians else None,
            "peer": peer,
            "best": peers.get(peer),
            "ratio": rate / peers[peer] if peer else None,
            "wanted": WANTED.get(count),
        })  # fmt: skip
    return rows


def write_json(path: Path, found: Rates) -> None:
    """Write each round's rates, and the final table."""
    rates = [
        {"server": server, "clients": count, "tokens_per_second": it}
        for (server, count), it in found.items()
    ]
    path.write_text(json.dumps({"measured": rates, "table": final_rows(found)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
