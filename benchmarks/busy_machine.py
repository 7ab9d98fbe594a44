"""What a busy machine does to an answer: llamakit's way to wait, one thread, and libgomp's way.

``--busy N`` starts N processes that compute without end. 64 tokens of the bundled demo model are
generated on all cores with the threads waiting as llamakit has them wait (``llamakit/cores.py``),
on one thread, and on all cores as libgomp waits by itself; each in a process of its own, in turn.
Prints seconds and the ratio to the first, and the machine's load.

    python benchmarks/busy_machine.py [--busy N] [--rounds N]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from llamakit.cores import available_cores, wait_briefly

PROGRAM = """
import time
from llamakit import Llama, demo
from llamakit.api import choose_sampling

llama = Llama.build(str(demo.path()), max_seq_len=256)
prompt = llama.tokenizer.encode("Once upon a time", bos=True)
start = time.perf_counter()
answer = llama.stream([prompt], max_new_tokens=64, sampling=choose_sampling(temperature=0))
tokens = sum(1 for _ in answer)
print((time.perf_counter() - start) * 64 / tokens)
"""

NAMES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def settings() -> dict[str, dict[str, str]]:
    """Return the variables of each way."""
    for name in NAMES:
        os.environ.pop(name, None)
    wait_briefly()
    ours = {"GOMP_SPINCOUNT": os.environ.pop("GOMP_SPINCOUNT")}
    return {"llamakit": ours, "one thread": ours | {"OMP_NUM_THREADS": "1"}, "libgomp": {}}


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Have so many processes compute meanwhile."""
    spin = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(spin) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def seconds(env: dict[str, str]) -> float:
    """Time one answer."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, default=8 * available_cores())
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ways = settings()
    times: dict[str, list[float]] = {name: [] for name in ways}
    with busy(arguments.busy):
        for _ in range(arguments.rounds):
            for name, env in ways.items():
                times[name].append(seconds(env))
    load = os.getloadavg()[0]
    print(f"{available_cores()} cores, {arguments.busy} busy processes, load {load:.1f}")
    ours = statistics.median(times["llamakit"])
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:12} {median:6.2f} s for 64 tokens, {median / ours:5.2f} times llamakit's")


if __name__ == "__main__":
    main()
