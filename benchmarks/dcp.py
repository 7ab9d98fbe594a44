"""Distributed checkpoints of torch, to and from: against torch's own `torch_save_to_dcp` and back.

    python benchmarks/dcp.py                          # 1 GB, three rounds
    python benchmarks/dcp.py --shape tiny --rounds 1

Every program runs in a process of its own, on files that are not in the kernel's cache, and ends
with what it wrote on the disk. `anonymous` is the peak of RssAnon in /proc/PID/status: memory that
is no cache of a file. torch's programs read and write one file; so do ours here. What both wrote is
compared value for value.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from convert import make_checkpoint, measure, spread

import llamakit

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "packages" / "llamakit-dcp"
SHAPES = {
    "1gb": {"dim": 2048, "n_layers": 7, "n_heads": 16, "vocab_size": 32000},
    "tiny": {"dim": 512, "n_layers": 8, "n_heads": 8, "vocab_size": 32000},
}
IN_DCP = "import os, sys; from torch.distributed.checkpoint import format_utils as f;"
TORCH_TO = f"{IN_DCP} f.torch_save_to_dcp(sys.argv[1] + '/consolidated.00.pth', sys.argv[2])"
TORCH_FROM = (
    f"{IN_DCP} os.mkdir(sys.argv[2]);"
    "f.dcp_to_torch_save(sys.argv[1], sys.argv[2] + '/consolidated.00.pth')"
)
OURS_TO = (
    "import sys, llamakit; from pathlib import Path; from llamakit_dcp import DCPExporter;"
    "DCPExporter()(llamakit.open_checkpoint(sys.argv[1]), Path(sys.argv[2]), {})"
)
OURS_FROM = (
    "import sys, llamakit; from pathlib import Path; from llamakit_dcp.reader import open_dcp;"
    "llamakit.reshard(open_dcp(Path(sys.argv[1])), sys.argv[2], 1)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="1gb")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PACKAGE), str(ROOT)])
    sys.path.insert(0, str(PACKAGE))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        run(Path(name), SHAPES[arguments.shape], arguments.rounds)


def run(folder: Path, shape: dict[str, int], rounds: int) -> None:
    make_checkpoint(folder / "eight", shape)
    llamakit.reshard(folder / "eight", folder / "meta", 1)
    nbytes = (folder / "meta" / "consolidated.00.pth").stat().st_size
    print(f"{nbytes / 1e9:.2f} GB, one file")
    compare("to", TORCH_TO, OURS_TO, folder / "meta", folder, rounds)
    (folder / "torch-to" / "params.json").write_bytes((folder / "meta/params.json").read_bytes())
    from llamakit_dcp.reader import open_dcp

    both = [open_dcp(folder / f"{who}-to") for who in ("torch", "ours")]
    print("to: the same values" if llamakit.diff(*both).same else "to: OTHER VALUES")
    compare("from", TORCH_FROM, OURS_FROM, folder / "ours-to", folder, rounds)
    (folder / "torch-from" / "params.json").write_bytes((folder / "meta/params.json").read_bytes())
    same = llamakit.diff(folder / "torch-from", folder / "ours-from").same
    print("from: the same values" if same else "from: OTHER VALUES")


def compare(way: str, theirs: str, ours: str, source: Path, folder: Path, rounds: int) -> None:
    programs = {"torch": theirs, "ours": ours}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    peaks = dict.fromkeys(programs, 0)
    for number in range(rounds):
        for name in sorted(programs, reverse=number % 2 == 0):
            command = ["sh", "-c", '"$0" -c "$1" "$2" "$3" && sync', sys.executable]
            command += [programs[name], str(source), str(folder / f"{name}-{way}")]
            took, peak = measure(command, source, folder / f"{name}-{way}")
            seconds[name].append(took)
            peaks[name] = max(peaks[name], peak)
    for name, taken in seconds.items():
        ratios = [ours / torch for ours, torch in zip(taken, seconds["torch"], strict=True)]
        print(
            f"{way:5} {name:6} {spread(taken, 1):>18} s, ratio {statistics.median(ratios):.2f}; "
            f"anonymous {peaks[name] / 1e6:.0f} MB"
        )


if __name__ == "__main__":
    main()
