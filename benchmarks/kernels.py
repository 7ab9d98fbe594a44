"""How fast each kernel multiplies by a weight, against PyTorch's own linear.

All kernels take turns in random order, each on several copies of one random weight that together
are larger than a processor's cache. Printed is the quickest tenth of the calls: in bytes of packed
weight a second, and times the speed of ``F.linear`` in bfloat16.

    python benchmarks/kernels.py [--outputs N] [--inputs K] [--rows 1,8,128] [--bits 16,8,4]
        [--gated] [--seconds S]
"""

from __future__ import annotations

import argparse
import math

import torch

from llamakit.plugin_manager.registry import Entry
from llamakit.runtime.kernels.kernel import Kernel
from llamakit.runtime.kernels.measuring import packed_copies, quickest_tenths
from llamakit.runtime.kernels.registered import kernels_for
from llamakit.runtime.kernels.rounded import round_weight


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outputs", type=int, default=11264)
    parser.add_argument("--inputs", type=int, default=2048)
    parser.add_argument("--rows", default="1,8,128")
    parser.add_argument("--bits", default="16,8,4")
    parser.add_argument("--gated", action="store_true", help="a feed-forward's first half")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each number of rows")
    arguments = parser.parse_args()
    weight = (torch.randn(arguments.outputs, arguments.inputs) * 0.02).bfloat16()
    made = {entry.name: packed(entry, weight) for entry in available(arguments.bits)}
    kernels = {name: some for name, some in made.items() if some}
    measured = {
        name: [copy.gated if arguments.gated else copy for copy in copies]
        for name, copies in kernels.items()
    }
    for rows in map(int, arguments.rows.split(",")):
        x = torch.randn(rows, arguments.inputs).bfloat16()
        best = quickest_tenths(measured, x, arguments.seconds)
        print(f"\n{rows} rows{'GB/s':>16}{'µs':>9}   times F.linear")
        for name, seconds in best.items():
            speed = kernels[name][0].nbytes / seconds / 1e9
            times = best.get("plain", math.nan) / seconds
            print(f"{name:14}{speed:8.1f}{seconds * 1e6:9.0f}{times:10.2f}")


def available(bits: str) -> list[Entry]:
    """Return the kernels that this processor has, those of plugins among them.

    Args:
        bits: of the weights, separated by commas.
    """
    cpu, dtype = torch.device("cpu"), torch.bfloat16
    found = [
        entry
        for number in map(int, bits.split(","))
        for rows in (1, 8)
        for entry in kernels_for(cpu, dtype, number, rows)
    ]
    found.sort(key=lambda entry: entry.name != "plain")
    return list(dict.fromkeys(found))


def packed(entry: Entry, weight: torch.Tensor) -> list[Kernel]:
    """Pack copies of a weight; none if the kernel does not take it."""
    bits = entry.value.bits
    held = weight if bits == 16 else round_weight(weight, "int8" if bits == 8 else "int4")
    return packed_copies(entry, held, torch.bfloat16)


if __name__ == "__main__":
    main()
