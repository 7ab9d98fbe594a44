"""Calibration: measures the kernels on this machine and stores which is fastest.

Kernels of one number of bits are compared, built-in ones and those of plugins. Nothing is measured
unless ``llamakit doctor --calibrate`` is run; without it the kernel is taken that was fastest on
other machines.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import time
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
from llamakit.runtime.kernels.registered import kernels_for, missing, pack
from llamakit.runtime.kernels.trial import copied, outlier_fault, random_weight

SHAPE = (4096, 2048)
"""Of the weight that is measured: outputs, inputs."""

ROWS = (1, 8, 64)
ONE, SEVERAL = "one sequence", "several"
WEIGHED = {ONE: (1, 64), SEVERAL: (8, 64)}
"""Which numbers of rows count for a model that writes one sequence at a time, and several."""

BITS = (16, 8, 4)

COPIES = 6
"""Weights multiplied in turn; before each turn the processor's cache is filled with others."""

SECONDS = 0.3
"""How long each kernel and number of rows is measured."""

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
    empty = empty_cache()
    entries = candidates()
    for number, entry in enumerate(entries, 1):
        progress(f"measuring {entry.name} ({number} of {len(entries)})")
        try:
            timings += _measure(entry, empty)
        except PluginError as error:
            default_toolkit().note_failure(entry, error)
            progress(f"left out: {error}")
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


def empty_cache() -> Callable[[], object]:
    """Return what reads as much memory as the processor's largest cache holds."""
    others = torch.ones(cache_size() // 8 + 1, dtype=torch.int64)
    return others.sum


def cache_size(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Return the bytes of the processor's largest cache, 0 where the system does not say."""
    sizes = [0]
    for path in folder.glob("index*/size"):
        with contextlib.suppress(OSError, ValueError):
            sizes.append(int(path.read_text().strip().removesuffix("K")) << 10)
    return max(sizes)


def _measure(entry: Entry, empty: Callable[[], object]) -> list[Timing]:
    dtype = _dtype()
    if fault := outlier_fault(entry, dtype):
        raise entry.breach(f"{fault}, where two channels are outliers")
    weight = random_weight(SHAPE, entry.value.bits, dtype)
    packed = (pack(entry, copied(weight), dtype) for _ in range(COPIES))
    kernels = [kernel for kernel in packed if kernel is not None]
    if not kernels:
        return []  # it does not take such weights
    shapes = ((rows, SHAPE[1]) for rows in ROWS)
    inputs = (torch.randn(shape).to(dtype) for shape in shapes)
    return [_timing(entry.name, kernels, x, empty) for x in inputs]


@torch.inference_mode()
def _timing(
    name: str, kernels: list[Kernel], x: torch.Tensor, empty: Callable[[], object]
) -> Timing:
    seconds: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(seconds) < 2 * len(kernels):
        empty()
        for kernel in kernels:
            start = time.perf_counter()
            kernel(x)
            seconds.append(time.perf_counter() - start)
    best = sorted(seconds)[len(seconds) // 10]
    return Timing(name, len(x), best, kernels[0].nbytes / best)


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
