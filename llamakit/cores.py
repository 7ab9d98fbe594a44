"""How many cores this process may use, and how its threads wait for one another."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

_SPINS = "1000"
"""Rounds of waiting, some 50 µs: threads of one step are ready within that where cores are free."""


def available_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: its CPU affinity and its cgroup's quota.

    Args:
        root: the folder in which ``proc`` and ``sys`` are.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *_quotas(root)]))


def wait_briefly() -> None:
    """Have OpenMP's threads sleep soon where they wait for one another.

    The default of libgomp is to keep a core busy for milliseconds. Where others want that core, the
    thread that is waited for does not get it meanwhile: see ``benchmarks/busy_machine.py``. To be
    called before torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def _quotas(root: Path) -> Iterator[int]:
    """Yield the limits, in whole cores, of the cgroups that this process is in."""
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "" or "cpu" in controllers.split(","):
                top = root / "sys/fs/cgroup" / controllers
                inside = Path(path.lstrip("/"))
                yield from filter(None, (_quota(top / it) for it in (inside, *inside.parents)))


def _quota(folder: Path) -> int | None:
    """Return the limit of one cgroup; None: it has none."""
    with contextlib.suppress(OSError, ValueError):
        if (version2 := folder / "cpu.max").exists():
            quota, period = version2.read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        if int(quota) > 0:  # -1 and "max" are none
            return math.ceil(int(quota) / int(period))
    return None
