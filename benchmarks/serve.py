"""What the server's batching is worth, beside the servers of vLLM and transformers.

Each server runs the same weights in float32, one after the other and several times over; as many
clients as told have strings continued over kept-alive connections with TCP_NODELAY (httpx sets it),
each as soon as its last one is answered. One client is one by one: the same engine without
batching. Prints answered tokens a second and the ratios, from medians.

    python benchmarks/serve.py [--clients 1 8 32] [--tokens 64] [--rounds 3] [--model FOLDER]
        [--vllm PYTHON]

vLLM's CPU build runs where ``--vllm`` names an interpreter that has it (``benchmarks/engines.py``
says how to make one), compiled as it does by default: its first start takes minutes.

``transformers serve`` needs its own extra: ``pip install 'transformers[serving]'``; without it only
llamakit's own ratios are printed. Its ``--continuous-batching`` is not used: on a CPU one
request got no answer within 15 s in one try.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

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


def servers(
    model: Path, exported: Path, most: int, vllm: Path | None
) -> dict[str, tuple[list[str], int, str]]:
    """Return each server's words, port and the name that it calls the model."""
    ours, theirs, vllms = free_port(), free_port(), free_port()
    python = [sys.executable, "-m", "llamakit"]
    start = "from transformers.cli.transformers import main; main()"
    known = {
        "llamakit": (
            [*python, "serve", "-m", str(model), "--dtype", "float32", "--port", str(ours),
             "--slots", str(most), "--max-seq-len", "256"],
            ours,
            model.name,
        ),
        "transformers": (
            [sys.executable, "-c", start, "serve", str(exported), "--port", str(theirs),
             "--dtype", "float32", "--device", "cpu"],
            theirs,
            str(exported),
        ),
    }  # fmt: skip
    if vllm:
        words = [str(vllm.with_name("vllm")), "serve", str(exported), "--port", str(vllms),
                 "--host", "127.0.0.1", "--dtype", "float32", "--max-num-seqs", str(most),
                 "--max-model-len", "256", "--gpu-memory-utilization", "0.1",
                 "--no-enable-log-requests"]  # fmt: skip
        known["vllm"] = (words, vllms, str(exported))
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, help="default: the bundled demo model")
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", help="has vLLM's CPU build")
    arguments = parser.parse_args()
    from llamakit import demo

    model = (arguments.model or demo.path()).resolve()
    found: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        exported = Path(name) / "exported"
        subprocess.run(
            [sys.executable, "-m", "llamakit", "export", str(model), str(exported)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(arguments.rounds):
            known = servers(model, exported, max(arguments.clients), arguments.vllm)
            for server, (words, port, called) in known.items():
                try:
                    with running(words, port, Path(name) / f"{server}.log") as url:
                        speed(url, called, 1, 2, 8)  # warm
                        for clients in arguments.clients:
                            asked = max(8, 4 * clients)
                            rate = speed(url, called, clients, asked, arguments.tokens)
                            found.setdefault((server, clients), []).append(rate)
                            print(f"  {server}, {clients} clients: {rate:.1f}", flush=True)
                except (SystemExit, httpx.HTTPError) as error:
                    print(f"{server}: {error}")
    report(found, arguments.clients)


def report(found: dict[tuple[str, int], list[float]], clients: list[int]) -> None:
    """Print medians and ratios."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    medians = {key: statistics.median(rates) for key, rates in found.items()}
    for (server, count), rate in medians.items():
        rates = found[server, count]
        spread = f"({min(rates):.1f} to {max(rates):.1f})"
        print(f"{server:14}{count:3} clients {rate:9.1f} tokens/s  {spread}")
    ours = {count: medians["llamakit", count] for count in clients}
    for count in clients[1:]:
        print(f"llamakit, {count} clients / {clients[0]}: {ours[count] / ours[clients[0]]:.2f}")
    for (server, count), rate in medians.items():
        if server != "llamakit":
            ratio = ours[count] / rate
            print(f"llamakit / {server} serve, {count} clients: {ratio:.2f}")


if __name__ == "__main__":
    main()
