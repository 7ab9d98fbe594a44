"""Tokens a second of two replicas on a Ray cluster against one, in the same run.

    .ray/bin/python benchmarks/replicas.py [-m FOLDER] [--prompts N] [--tokens N] [--rounds N]

Each is on a cluster of its own on this machine. What is timed is from the first block of answers
to the last: starting Ray and loading the weights are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from llamakit import demo
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.protocols import AnswerJob


def job(model: str, prompts: int, tokens: int, replicas: int) -> AnswerJob:
    """Return a job whose answers all have the same length."""
    options = {
        "model": model,
        "loading": {"dtype": "float32", "max_batch_size": 8},
        "max_new_tokens": tokens,
        "sampling": {"processors": [f"min-length:length={tokens}"]},
    }
    requests: Sequence[dict[str, Any]] = [
        {"index": it, "prompt": f"Once upon a time {it}", "seed": it} for it in range(prompts)
    ]
    return AnswerJob(options, requests, "", replicas, contextlib.nullcontext, lambda: None)


def speed(model: str, prompts: int, tokens: int, replicas: int, threads: int) -> float:
    """Return tokens a second, from the first block of answers to the last."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    runner = default_toolkit().runners.get("ray")
    pieces = iter(runner(job(model, prompts, tokens, replicas)))
    next(pieces)
    start, count = time.monotonic(), 0
    for piece in pieces:
        count += piece.tokens
    return count / (time.monotonic() - start)


def main() -> None:
    """Measure one and two replicas in turn, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default=str(demo.path()))
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[tuple[int, int], list[float]] = {(1, 1): [], (2, 1): [], (1, 2): []}
    for _ in range(given.rounds):
        for kind, speeds in found.items():
            speeds.append(speed(given.model, given.prompts, given.tokens, *kind))
            replicas, threads_each = kind
            print(f"{replicas} x {threads_each} threads: {speeds[-1]:.0f} tokens/s", flush=True)
    one, two, threads = (median(speeds) for speeds in found.values())
    print(f"one replica, one thread   {one:8.0f} tokens/s")
    print(f"two replicas, one thread  {two:8.0f} tokens/s: {two / one:.2f} of the first")
    print(f"one replica, two threads  {threads:8.0f} tokens/s: {threads / one:.2f} of the first")


if __name__ == "__main__":
    main()
