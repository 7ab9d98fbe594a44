"""A report on the machine: devices, threads and the kernels chosen for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from llamakit.runtime.device import pick_device, pick_dtype
from llamakit.runtime.kernels import calibration
from llamakit.runtime.rank_environment import read_environment


def describe_machine(
    *, calibrate: bool = False, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Describe the machine and the kernels that are chosen for it.

    Args:
        calibrate: measure the kernels and remember the faster one.
        progress: called with what is measured next.
    Returns:
        What ``llamakit doctor --json`` prints.
    """
    timings = calibration.calibrate(progress) if calibrate else calibration.remembered_timings()
    measured = calibration.remembered()
    device = pick_device("auto")
    return {
        **calibration.machine(),
        "device": str(device),
        "cuda_devices": [
            torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
        ],
        "ranks": read_environment().size,
        "calibrated": measured is not None,
        "kernels": kernels(device),
        "unavailable": calibration.unavailable(),
        "timings": [asdict(timing) for timing in timings],
    }


def kernels(device: torch.device) -> dict[str, str]:
    """Return the kernel used for each weight dtype on a device, by packing a small weight."""
    chosen = {}
    for stored in ("float32", "bfloat16", "float16"):
        dtype = pick_dtype("auto", stored, device)
        weight = torch.ones(64, 1024, dtype=getattr(torch, stored))
        names = _names(device, dtype, None, weight)
        chosen[stored] = f"{names}, computed in {str(dtype).removeprefix('torch.')}"
    for quantize in ("int8", "int4"):
        if quantize == "int4" and device.type == "mps":
            continue
        dtype = pick_dtype("auto", "bfloat16", device)
        chosen[quantize] = _names(device, dtype, quantize, torch.ones(64, 1024).bfloat16())
    return chosen


def _names(
    device: torch.device, dtype: torch.dtype, quantize: str | None, weight: torch.Tensor
) -> str:
    one, several = (
        calibration.packer(device, dtype, quantize, batch=batch).pack(weight).name
        for batch in (1, 2)
    )
    return one if one == several else f"{one} for one sequence at a time, {several} for more"
