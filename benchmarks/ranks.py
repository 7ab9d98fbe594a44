"""Sums over the ranks of one host: llamakit's process group beside gloo, in the same run.

    python benchmarks/ranks.py [--ranks 2]

Prints the median time of an all-reduce of float32 values, for the lengths that a decoding step and
a prompt of a 7B have, and gloo's time divided by ours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

LENGTHS = {
    "one token, dim 288": 288,
    "one token, dim 4096": 4096,
    "512 tokens, dim 4096": 512 * 4096,
}
PLACE = "LLAMAKIT_BENCHMARK_STORE"
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    ranks = parser.parse_args().ranks
    if PLACE in os.environ:
        measure(int(os.environ["RANK"]), ranks)
        return

    from llamakit.runtime.rank_links import SOCKETS, make_links

    with tempfile.TemporaryDirectory() as name:
        links = make_links(ranks)
        processes = []
        for link in links:
            environment = {
                **os.environ,
                PLACE: str(Path(name) / "store"),
                "RANK": str(link.rank),
                "OMP_NUM_THREADS": "1",
                SOCKETS: ",".join(map(str, link.descriptors)),
            }
            command = [sys.executable, __file__, "--ranks", str(ranks)]
            processes.append(subprocess.Popen(command, env=environment, pass_fds=link.descriptors))
        for link in links:
            link.close()
        sys.exit(max(process.wait() for process in processes))


def measure(rank: int, ranks: int) -> None:
    """Time both groups in turn on this rank; rank 0 prints."""
    import torch
    from torch import distributed

    from llamakit.runtime import local_group
    from llamakit.runtime.rank_links import inherited_links

    local_group.register(inherited_links(rank, ranks))
    store = distributed.FileStore(os.environ[PLACE], ranks)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    ours = distributed.new_group(backend=local_group.BACKEND, timeout=timedelta(minutes=5))
    for title, length in LENGTHS.items():
        values = torch.ones(length)
        seconds: dict[str, list[float]] = {"llamakit": [], "gloo": []}
        for _ in range(ROUNDS):
            for name, group in (("llamakit", ours), ("gloo", distributed.group.WORLD)):
                for _ in range(max(5, 200_000 // length)):
                    values.fill_(1)
                    started = time.perf_counter()
                    distributed.all_reduce(values, group=group)
                    seconds[name].append(time.perf_counter() - started)
        if rank == 0:
            own, peer = (statistics.median(seconds[it]) * 1e6 for it in ("llamakit", "gloo"))
            print(f"{title:22}  {own:8.0f} µs  gloo {peer:8.0f} µs  ratio {peer / own:5.2f}")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
