"""How fast reshard and export are: against `cp`, and against loading all with torch.

    python benchmarks/convert.py                      # a 2 GB checkpoint, 8 shards
    python benchmarks/convert.py --shape 7b --folder /big/disk --once
    python benchmarks/convert.py --programs reshard,export

Every program runs in a process of its own, on files that are not in the kernel's cache, and ends
with what it wrote on the disk. The order changes from round to round. `anonymous` is the peak of
RssAnon in /proc/PID/status: memory that is no cache of a file. `cp` runs twice a round: where the
two differ much, the disk has bursts (or somebody else uses it), and only a checkpoint much larger
than a burst says anything.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.layout import expected_parameters
from llamakit.checkpoint.params import parse_params
from llamakit.checkpoint.pth_writer import PthLayout
from llamakit.checkpoint.shard_plan import slice_for_rank

SHAPES = {
    "2gb": {"dim": 2048, "n_layers": 17, "n_heads": 16, "vocab_size": 32000},
    "7b": {"dim": 4096, "n_layers": 32, "n_heads": 32, "vocab_size": 32000},
    "tiny": {"dim": 512, "n_layers": 8, "n_heads": 8, "vocab_size": 32000},
}
SHARDS, NEW_SHARDS = 8, 2

PEER = """
import sys, torch
from pathlib import Path
source, destination, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
shards = [torch.load(path, weights_only=True) for path in sorted(source.glob("*.pth"))]
destination.mkdir()
columns = ("wo.weight", "w2.weight", "tok_embeddings.weight")
cut = {}
for name in list(shards[0]):
    axis = None if "norm" in name else 1 if name.endswith(columns) else 0
    whole = shards[0][name] if axis is None else torch.cat([s.pop(name) for s in shards], axis)
    cut[name] = [whole] * size if axis is None else whole.chunk(size, axis)
for rank in range(size):
    shard = {name: parts[rank].clone() for name, parts in cut.items()}
    torch.save(shard, destination / f"consolidated.{rank:02d}.pth")
"""
OURS = "import sys, llamakit; llamakit.{}(sys.argv[1], sys.argv[2], {})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="2gb")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--programs", help="which besides cp, such as reshard,export; else all")
    parser.add_argument("--once", action="store_true", help="one round, without the torch peer")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="llamakit-bench-") as folder:
        source = Path(folder) / "source"
        nbytes = make_checkpoint(source, SHAPES[arguments.shape])
        print(f"{nbytes / 1e9:.2f} GB in {SHARDS} shards, {os.cpu_count()} cores", flush=True)
        destination = Path(folder) / "result"
        programs = commands(source, destination, with_peer=not arguments.once)
        if arguments.programs:
            chosen = ["cp", *arguments.programs.split(",")]
            programs = {name: programs[name] for name in chosen}
        rounds = 1 if arguments.once else arguments.rounds
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        anonymous: dict[str, int] = dict.fromkeys(programs, 0)
        for number in range(rounds):
            names = list(programs)
            names = names[number % len(names) :] + names[: number % len(names)]
            for name in names:
                took, peak = measure(programs[name], source, destination)
                seconds[name].append(took)
                anonymous[name] = max(anonymous[name], peak)
                print(f"  {name}: {took:.1f} s", flush=True)
        report(seconds, anonymous)


def commands(source: Path, destination: Path, *, with_peer: bool) -> dict[str, list[str]]:
    paths = [str(source), str(destination)]

    def python(code: str, *more: str) -> list[str]:
        return [sys.executable, "-c", code, *paths, *more]

    size = f"{NEW_SHARDS}"
    programs = {
        "cp": ["sh", "-c", 'cp -r "$1" "$2" && sync', "sh", *paths],
        "reshard": python(OURS.format("reshard", size)),
        "reshard, buffered": python(OURS.format("reshard", f"{size}, direct=False")),
        "reshard, verified": python(OURS.format("reshard", f"{size}, verify=True")),
        "cp, again": ["sh", "-c", 'cp -r "$1" "$2" && sync', "sh", *paths],
        "export": python(OURS.format("export", "'hf'")),
        "export, buffered": python(OURS.format("export", "'hf', direct=False")),
    }
    if with_peer:
        programs["torch: load, cat, save"] = [
            *("sh", "-c", '"$0" -c "$1" "$2" "$3" "$4" && sync', sys.executable, PEER, *paths, size)
        ]
    return programs


def measure(command: list[str], source: Path, destination: Path) -> tuple[float, int]:
    """Run a program on a cold source; return its seconds and its peak of RssAnon in bytes."""
    shutil.rmtree(destination, ignore_errors=True)
    os.sync()
    for path in source.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(rss_anon, [process.pid, *children(process.pid)])))
        time.sleep(0.02)
    took = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{command} failed")
    return took, peak


def rss_anon(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def children(pid: int) -> list[int]:
    try:
        return [int(it) for it in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def report(seconds: dict[str, list[float]], anonymous: dict[str, int]) -> None:
    print(f"{'':24} {'seconds':>18} {'against cp':>18} {'anonymous':>10}")
    for name, taken in seconds.items():
        ratios = [ours / cp for ours, cp in zip(taken, seconds["cp"], strict=True)]
        print(
            f"{name:24} {spread(taken, 1):>18} {spread(ratios, 2):>18} "
            f"{anonymous[name] / 1e6:7.0f} MB"
        )


def spread(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def make_checkpoint(folder: Path, numbers: dict[str, float]) -> int:
    """Write random shards, params.json and checklist.chk; return the bytes of the shards."""
    folder.mkdir()
    values = {"multiple_of": 256, "norm_eps": 1e-5} | numbers
    (folder / "params.json").write_text(json.dumps(values))
    params = parse_params(values, folder / "params.json")
    parameters = expected_parameters(params, 1, "float16")
    rng = np.random.default_rng(0)
    pool = rng.standard_normal(1 << 25, np.float32).astype(np.float16).view(np.uint8)
    for rank in range(SHARDS):
        tensors = []
        for parameter in parameters.values():
            cut = slice_for_rank(parameter, params, rank, SHARDS)
            shape = list(parameter.shape)
            shape[cut.axis] = cut.stop - cut.start
            tensors.append(TensorSpec(parameter.name, "float16", tuple(shape)))
        write(folder / f"consolidated.{rank:02d}.pth", tensors, pool, rng)
    shards = sorted(folder.glob("*.pth"))
    with (folder / "checklist.chk").open("w") as file:
        subprocess.run(
            ["md5sum", *[shard.name for shard in shards]], cwd=folder, stdout=file, check=True
        )
    return sum(shard.stat().st_size for shard in shards)


def write(
    path: Path, tensors: list[TensorSpec], pool: np.ndarray, rng: np.random.Generator
) -> None:
    layout = PthLayout(path.stem, tensors)
    crcs = []
    with path.open("wb") as file:
        file.write(layout.head)
        for index, tensor in enumerate(tensors):
            file.write(layout.before(index))
            start = 2 * int(rng.integers(0, 1000))
            values = np.resize(pool[start:], tensor.nbytes)
            crcs.append(zlib.crc32(values))
            file.write(values)
            file.write(layout.after(index, crcs[-1]))
        file.write(layout.tail(crcs))


if __name__ == "__main__":
    main()
