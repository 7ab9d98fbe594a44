"""How long ``llamakit --help`` takes, against importing the two packages that it is built on.

Both run in turn in the same session, so that what else the machine does hits both. Prints the
medians, their ratio, and how many plugins ``--help`` loaded.

    python benchmarks/startup.py [--runs N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PEER = [sys.executable, "-c", "import click, pluggy"]
SCRIPT = Path(sys.executable).with_name("llamakit")
LLAMAKIT = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "llamakit"]

ENV = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""The first run compiles, as installing does."""


def seconds(command: list[str]) -> float:
    """Return the wall-clock time of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=ENV)
    return time.perf_counter() - start


def count_plugins() -> str:
    """Say how many plugins there are, and how many of them work."""
    listing = subprocess.run(
        [*LLAMAKIT, "plugins", "--json"], check=True, capture_output=True, text=True
    ).stdout
    statuses = [plugin["status"] for plugin in json.loads(listing)]
    return f"{len(statuses)} plugins found, {statuses.count('ok')} of them ok"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    runs = parser.parse_args().runs
    seconds(PEER), seconds([*LLAMAKIT, "--help"])  # warm: compiled and in the page cache

    pairs = [(seconds(PEER), seconds([*LLAMAKIT, "--help"])) for _ in range(runs)]

    peer, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"{'python -c ' + repr(PEER[-1]):36}{peer * 1000:7.1f} ms")
    print(f"{Path(LLAMAKIT[0]).name + ' --help':36}{ours * 1000:7.1f} ms")
    print(f"{'ratio':36}{ours / peer:7.2f}")
    print(count_plugins())


if __name__ == "__main__":
    main()
