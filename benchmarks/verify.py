"""How long ``llamakit verify`` takes, against ``md5sum -c`` and ``xargs -P2 md5sum``.

All three check the same folder of 8 random files in turn, several times in the same session, so
that what else the machine does hits each. Before each run the files are put out of the kernel's
cache. Prints medians, ranges and ratios, and the most anonymous memory that verify had.

    python benchmarks/verify.py [--runs N] [--gigabytes N] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILES = 8
CONTENDERS = {
    "md5sum -c": ["md5sum", "-c", "--quiet", "checklist.chk"],
    "xargs -P2 md5sum": ["sh", "-c", "ls *.pth | xargs -n1 -P2 md5sum > /dev/null"],
    "llamakit verify": [sys.executable, "-m", "llamakit", "verify", "."],
}
TARGETS = {"md5sum -c": 0.5, "xargs -P2 md5sum": 1.0}


@contextmanager
def random_folder(parent: Path | None, nbytes: int) -> Iterator[Path]:
    """Write random files and their checklist."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="llamakit-bench-") as name:
        folder = Path(name)
        for number in range(FILES):
            with (folder / f"consolidated.{number:02d}.pth").open("wb") as file:
                for _ in range(nbytes // FILES >> 22):
                    file.write(os.urandom(1 << 22))
                file.write(os.urandom(12345))  # shards do not end at a page
        names = sorted(file.name for file in folder.iterdir())
        sums = subprocess.run(["md5sum", *names], cwd=folder, check=True, capture_output=True)
        (folder / "checklist.chk").write_bytes(sums.stdout)
        yield folder


def drop_cache(folder: Path) -> None:
    """Put the files of a folder out of the kernel's cache."""
    os.sync()
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(command: list[str], folder: Path) -> tuple[float, int]:
    """Return the seconds that one cold run took, and its peak RssAnon in bytes."""
    drop_cache(folder)
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_nbytes(process.pid))
        time.sleep(0.005)
    seconds = time.perf_counter() - start
    assert process.returncode == 0, command
    return seconds, peak


def anonymous_nbytes(pid: int) -> int:
    """Return how much anonymous memory a process has now."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(lines[0].split()[1]) << 10 if lines else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--folder", type=Path, help="where to make the files; a real disk")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    peak = 0
    with random_folder(arguments.folder, int(arguments.gigabytes * 1e9)) as folder:
        for _ in range(arguments.runs):
            for name, command in CONTENDERS.items():
                took, anonymous = run(command, folder)
                seconds[name].append(took)
                peak = max(peak, anonymous) if name == "llamakit verify" else peak

    print(f"{FILES} files, {arguments.gigabytes:g} GB, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}, {arguments.runs} runs, cold cache")  # fmt: skip
    for name, times in seconds.items():
        spread = f"{min(times):.2f} to {max(times):.2f}"
        print(f"{name:20}{statistics.median(times):7.2f} s   ({spread})")
    ours = seconds["llamakit verify"]
    for name, target in TARGETS.items():
        pairs = [one / other for one, other in zip(ours, seconds[name], strict=True)]
        ratio = statistics.median(ours) / statistics.median(seconds[name])
        print(f"verify / {name:18}{ratio:5.2f}   (pair by pair {min(pairs):.2f} to "
              f"{max(pairs):.2f}; target at most {target})")  # fmt: skip
    print(f"peak RssAnon of verify   {peak / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
