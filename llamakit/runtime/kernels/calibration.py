"""Calibration: measures the kernels on this machine and stores which is fastest.

Only kernels that keep every value are compared. Nothing is measured unless ``llamakit doctor
--calibrate`` is run; without it the default is the kernel that was fastest on other machines.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from llamakit.files.atomic_file import write_atomically
from llamakit.files.json_reader import read_json_file
from llamakit.runtime.kernels import half_precision, quantized
from llamakit.runtime.kernels.choice import Packer
from llamakit.runtime.kernels.kernel import Kernel, Plain

SHAPE = (4096, 2048)
"""Of the weight that is measured: outputs, inputs."""

ROWS = (1, 8, 64)
ONE, SEVERAL = "one sequence", "several"
WEIGHED = {ONE: (1, 64), SEVERAL: (8, 64)}
"""Which numbers of rows count for a model that writes one sequence at a time, and several."""

EXACT = ("gemv", "onednn", "fbgemm")
"""Those that a bfloat16 weight may be packed for; ``fbgemm`` where float16 holds its values."""

USUAL = {ONE: "gemv", SEVERAL: "onednn"}
"""What was fastest on other machines, for where nothing was measured."""

COPIES = 6
"""Weights multiplied in turn: together more than a processor's cache holds."""

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


def packer(
    device: torch.device,
    dtype: torch.dtype,
    quantize: str | None,
    *,
    batch: int = 1,
    traceable: bool = False,
    mapped: bool = False,
) -> Packer:
    """Return the packer of a model's weights, with the measured or the default kernel.

    Args:
        batch: how many sequences will be decoded at the same time, at most.
        mapped: as for ``Packer``.
    """
    winners = (remembered() if device.type == "cpu" else None) or USUAL
    winner = winners[ONE if batch == 1 else SEVERAL]
    return Packer(device, dtype, quantize, winner, traceable, mapped)


def calibrate() -> list[Timing]:
    """Measure the CPU's kernels and remember the fastest for bfloat16; takes some seconds."""
    timings = [timing for name in candidates() for timing in _measure(name)]
    exact = [name for name in EXACT if name in candidates()]
    if len(exact) > 1:
        winners = {
            batch: min(exact, key=lambda name: _cost(timings, name, rows))
            for batch, rows in WEIGHED.items()
        }
        _remember(winners, timings)
    return timings


def candidates() -> list[str]:
    """Name the kernels that this CPU has."""
    names = ["plain"]
    names += ["gemv", "onednn"] if half_precision.has_onednn() else []
    names += ["fbgemm"] if half_precision.has_half() else []
    names += ["fbgemm-int8"] if quantized.has_int8_fbgemm() else []
    names += ["onednn-int8"] if quantized.has_int8_onednn() else []
    return [*names, "int4"]


def remembered(folder: Path | None = None) -> dict[str, str] | None:
    """Return which kernel was fastest for bfloat16, None if that was not measured here.

    Returns:
        Its name for each of ``WEIGHED``.
    """
    winners = _read(folder).get("bfloat16")
    if not isinstance(winners, dict) or winners.keys() != WEIGHED.keys():
        return None
    return winners if set(winners.values()) <= set(EXACT) else None


def remembered_timings(folder: Path | None = None) -> list[Timing]:
    """Return what was measured here, if anything was."""
    with contextlib.suppress(TypeError):
        return [Timing(**timing) for timing in _read(folder).get("timings", ())]
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


def _measure(name: str) -> list[Timing]:
    makers: dict[str, Callable[[torch.Tensor], Kernel]] = {
        "plain": Plain,
        "gemv": half_precision.RowByRow,
        "onednn": half_precision.OneDNN,
        "fbgemm": half_precision.Half,
        "fbgemm-int8": quantized.Int8FBGEMM,
        "onednn-int8": quantized.Int8OneDNN,
        "int4": quantized.Int4,
    }
    dtype = torch.bfloat16 if half_precision.has_onednn() else torch.float32
    kernels = [makers[name](torch.randn(SHAPE).to(dtype)) for _ in range(COPIES)]
    return [_timing(name, kernels, torch.randn(rows, SHAPE[1]).to(dtype)) for rows in ROWS]


@torch.inference_mode()
def _timing(name: str, kernels: list[Kernel], x: torch.Tensor) -> Timing:
    seconds: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(seconds) < 2 * COPIES:
        for kernel in kernels:
            start = time.perf_counter()
            kernel(x)
            seconds.append(time.perf_counter() - start)
    best = sorted(seconds)[len(seconds) // 10]
    return Timing(name, len(x), best, kernels[0].nbytes / best)


def _cost(timings: list[Timing], name: str, rows: tuple[int, ...]) -> float:
    """Return the product of the times: twice as slow counts alike at every number of rows."""
    return math.prod(one.seconds for one in timings if one.kernel == name and one.rows in rows)


def _remember(winners: dict[str, str], timings: list[Timing]) -> None:
    folder = _folder(None)
    record = {
        "machine": machine(),
        "bfloat16": winners,
        "timings": [asdict(one) for one in timings],
    }
    with contextlib.suppress(OSError):  # a read-only home: the result is only shown
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _FILE, f"{json.dumps(record, indent=2)}\n".encode())


def _folder(folder: Path | None) -> Path:
    from platformdirs import user_cache_path

    return folder or user_cache_path("llamakit")
