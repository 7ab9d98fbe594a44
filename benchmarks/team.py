"""Reshard and export by one process and by the ranks of torchrun, on one disk.

    python benchmarks/team.py [--ranks 2] [--shape 1gb] [--rounds 3] [--folder DISK]

Each is the whole command, in turn in the same run, on files that are not in the cache. What the
ranks take to start, torch's import above all, is measured on a checkpoint of some kB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from convert import SHAPES, make_checkpoint, measure, spread

TINY: dict[str, float] = {"dim": 256, "n_layers": 1, "n_heads": 8, "vocab_size": 256}
ONE_GB: dict[str, float] = {"dim": 2048, "n_layers": 8, "n_heads": 16, "vocab_size": 32000}
COMMANDS = {"reshard": ["-n", "4"], "export": ["--format", "hf", "--max-shard-size", "300MB"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    shapes = {"tiny": TINY, "1gb": ONE_GB, **SHAPES}
    parser.add_argument("--shape", choices=shapes, default="1gb")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="llamakit-bench-") as folder:
        sources = {"start": Path(folder) / "tiny", "whole": Path(folder) / "source"}
        make_checkpoint(sources["start"], TINY)
        nbytes = make_checkpoint(sources["whole"], shapes[arguments.shape])
        print(f"{nbytes / 1e9:.2f} GB, {arguments.ranks} ranks, {os.cpu_count()} cores", flush=True)
        for command, options in COMMANDS.items():
            for name, source in sources.items():
                words = [command, str(source), str(Path(folder) / "result"), *options]
                compare(f"{command}, {name}", words, arguments.ranks, arguments.rounds)


def compare(name: str, words: list[str], ranks: int, rounds: int) -> None:
    """Print the seconds of one process and of the ranks, and the ratio pair by pair."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    source, destination = Path(words[1]), Path(words[2])
    alone, together = [], []
    for number in range(rounds):
        runs = [(alone, ["-m", "llamakit"]), (together, [*torchrun, "-m", "llamakit"])]
        for taken, program in runs if number % 2 == 0 else reversed(runs):
            quiet = ["sh", "-c", 'exec "$@" > /dev/null', "sh", sys.executable]
            taken.append(measure([*quiet, *program, *words], source, destination)[0])
    ratio = statistics.median(two / one for one, two in zip(alone, together, strict=True))
    print(
        f"{name:16} {spread(alone, 1):>20} s {spread(together, 1):>20} s {ratio:5.2f}", flush=True
    )


if __name__ == "__main__":
    main()
