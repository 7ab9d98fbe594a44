"""Calibration: measures the kernels on this machine and stores which is fastest.

Kernels of one number of bits are compared, built-in ones and those of plugins. Nothing is measured
unless ``llamakit doctor --calibrate`` is run; without it the kernel is taken that was fastest on
other machines.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from llamakit.errors import PluginError
from llamakit.files.atomic_file import write_atomically
from llamakit.files.json_reader import read_json_file
from llamakit.plugin_manager.registry import Entry
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.runtime.kernels import half_precision
from llamakit.runtime.kernels.choice import Packer
from llamakit.runtime.kernels.kernel import Kernel
from llamakit.runtime.kernels.measuring import packed_copies, quickest_tenths
from llamakit.runtime.kernels.registered import kernels_for, missing
from llamakit.runtime.kernels.rounded import Weight
from llamakit.runtime.kernels.trial import outlier_fault, random_weight

SHAPE = (4096, 2048)
"""Of the weight that is measured: outputs, inputs."""

ROWS = (1, 8, 128)
ONE, SEVERAL = "one sequence", "several"
WEIGHED = {ONE: (1, 128), SEVERAL: (8, 128)}
"""Which numbers of rows count for a model that writes one sequence at a time, and several."""

BITS = (16, 8, 4)

SECONDS = 0.3
"""How long each kernel and number of rows is measured; those of one number of bits take turns."""

_FILE = "kernels.json"


@dataclass(frozen=True)
class Timing:
    """The speed of one kernel with a number of rows."""

    kernel: str
    rows: int
    seconds: float
    """Of one multiplication, the quickest tenth."""
    bandwidth: float
    """Bytes of packed weight a second."""

    @property
    def is_sound(self) -> bool:
        """Whether the values are of their types, as those of a damaged file may not be."""
        numbers = self.rows, self.seconds, self.bandwidth
        return isinstance(self.kernel, str) and all(
            isinstance(it, int | float) and 0 <= it < float("inf") for it in numbers
        )


def packer(
    device: torch.device,
    dtype: torch.dtype,
    quantize: str | None,
    *,
    batch: int = 1,
    traceable: bool = False,
    mapped: bool = False,
) -> Packer:
    """Return the packer of a model's weights, with the measured or the default kernels.

    Args:
        batch: how many sequences will be decoded at the same time, at most.
        mapped: as for ``Packer``.
    """
    winners = remembered() if device.type == "cpu" else None
    fastest = winners[ONE if batch == 1 else SEVERAL] if winners else {}
    return Packer(device, dtype, quantize, batch, fastest, traceable, mapped)


def calibrate(progress: Callable[[str], None] | None = None) -> list[Timing]:
    """Measure the CPU's kernels and remember the fastest; takes some seconds.

    A kernel that fails, or that is less exact than it says, is left out, and its plugin is broken.

    Args:
        progress: called with what is measured next, and with why something is left out.
    """
    progress = progress or (lambda _: None)
    timings: list[Timing] = []
    entries = candidates()
    numbers = itertools.count(1)

    def leave_out(entry: Entry, error: PluginError) -> None:
        default_toolkit().note_failure(entry, error)
        progress(f"left out: {error}")

    for _, alike in itertools.groupby(entries, lambda entry: entry.value.bits):
        timings += _measure(
            list(alike),
            lambda name: progress(f"measuring {name} ({next(numbers)} of {len(entries)})"),
            leave_out,
        )
    _remember({batch: _winners(timings, batch) for batch in WEIGHED}, timings)
    return timings


def candidates() -> list[Entry]:
    """Return the kernels that this CPU has."""
    cpu, dtype = torch.device("cpu"), _dtype()
    return [
        entry
        for bits in BITS
        for entry in dict.fromkeys(
            entry for rows in (1, max(ROWS)) for entry in kernels_for(cpu, dtype, bits, rows)
        )
    ]


def unavailable() -> dict[str, str]:
    """Return what this machine lacks for kernels that are registered, by their name."""
    kernels = default_toolkit().kernels
    return {entry.name: lacks for entry in kernels if (lacks := missing(entry))}


def remembered(folder: Path | None = None) -> dict[str, dict[int, str]] | None:
    """Return which kernels were fastest, None if that was not measured here.

    Returns:
        For each of ``WEIGHED`` their names, by bits.
    """
    winners = _read(folder).get("fastest")
    if not isinstance(winners, dict) or winners.keys() != WEIGHED.keys():
        return None
    if not all(isinstance(names, dict) for names in winners.values()):
        return None
    return {
        batch: {bits: names[str(bits)] for bits in BITS if isinstance(names.get(str(bits)), str)}
        for batch, names in winners.items()
    }


def remembered_timings(folder: Path | None = None) -> list[Timing]:
    """Return what was measured here, if anything was."""
    with contextlib.suppress(TypeError):
        timings = [Timing(**timing) for timing in _read(folder).get("timings", ())]
        if all(timing.is_sound for timing in timings):
            return timings
    return []


def _read(folder: Path | None) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        stored = read_json_file(_folder(folder) / _FILE)
        if isinstance(stored, dict) and stored.get("machine") == machine():
            return stored
    return {}


def machine() -> dict[str, str | int]:
    """Return what a measurement is valid for."""
    return {
        "processor": processor(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def processor() -> str:
    """Return the processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _dtype() -> torch.dtype:
    """Return what is measured in: what models of bfloat16 weights compute in here."""
    return torch.bfloat16 if half_precision.has_onednn() else torch.float32


def _measure(
    entries: list[Entry],
    progress: Callable[[str], None],
    leave_out: Callable[[Entry, PluginError], None],
) -> list[Timing]:
    """Measure kernels of one number of bits; ``progress`` is called with the name of each."""
    weight = random_weight(SHAPE, entries[0].value.bits, _dtype())
    by_name, kernels = {entry.name: entry for entry in entries}, {}
    for entry in entries:
        progress(entry.name)
        try:
            if copies := _packed(entry, weight):
                kernels[entry.name] = copies
        except PluginError as error:
            leave_out(entry, error)
    sizes = {name: copies[0].nbytes for name, copies in kernels.items()}
    timings: list[Timing] = []
    for rows in ROWS if kernels else ():
        x = torch.randn(rows, SHAPE[1]).to(_dtype())
        best = quickest_tenths(
            kernels,
            x,
            SECONDS * len(kernels),
            lambda name, error: leave_out(by_name[name], error),
        )
        kernels = {name: kernels[name] for name in best}
        timings += [Timing(name, rows, it, sizes[name] / it) for name, it in best.items()]
    return [timing for timing in timings if timing.kernel in kernels]


def _packed(entry: Entry, weight: Weight) -> list[Kernel]:
    """Pack copies, none if the kernel does not take such weights; an error if it is inexact."""
    if fault := outlier_fault(entry, _dtype()):
        raise entry.breach(f"{fault}, where two channels are outliers")
    return packed_copies(entry, weight, _dtype())


def _winners(timings: list[Timing], batch: str) -> dict[int, str]:
    """Return the fastest kernel of each number of bits, for one sequence or several."""
    rows = 1 if batch == ONE else min(WEIGHED[SEVERAL])
    measured = {one.kernel for one in timings}
    winners = {}
    for bits in BITS:
        entries = kernels_for(torch.device("cpu"), _dtype(), bits, rows)
        names = [entry.name for entry in entries if entry.name in measured]
        if names:
            winners[bits] = min(names, key=lambda name: _cost(timings, name, WEIGHED[batch]))
    return winners


def _cost(timings: list[Timing], name: str, rows: tuple[int, ...]) -> float:
    """Return the product of the times: twice as slow counts alike at every number of rows."""
    return math.prod(one.seconds for one in timings if one.kernel == name and one.rows in rows)


def _remember(winners: Mapping[str, Mapping[int, str]], timings: list[Timing]) -> None:
    folder = _folder(None)
    record = {
        "machine": machine(),
        "fastest": winners,
        "timings": [asdict(one) for one in timings],
    }
    with contextlib.suppress(OSError):  # a read-only home: the result is only shown
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _FILE, f"{json.dumps(record, indent=2)}\n".encode())


def _folder(folder: Path | None) -> Path:
    from platformdirs import user_cache_path

    return folder or user_cache_path("llamakit")
