"""Threads: as many as the machine gives, and none keeps a core busy that another one wants."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamakit.cores import available_cores, wait_briefly

HERE = available_cores()


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """Make ``/proc/self/cgroup`` and the files of ``/sys/fs/cgroup`` below a folder."""
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("cgroup", "files", "cores"),
    [
        ("0::/a/b\n", {f"{V2}/a/b/cpu.max": "100000 100000\n"}, 1),
        ("0::/a/b\n", {f"{V2}/a/cpu.max": "50000 100000\n", f"{V2}/a/b/cpu.max": "max 100000"}, 1),
        ("0::/\n", {f"{V2}/cpu.max": "100000 100000\n"}, 1),
        ("0::/gone\n", {f"{V2}/cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {f"{V2}/cpu.max": "9999900000 100000\n"}, HERE),
        ("0::/\n", {f"{V2}/cpu.max": "odd\n"}, HERE),
        ("0::/\n", {}, HERE),
        ("odd\n", {}, HERE),
        (
            "4:cpu,cpuacct:/x\n3:memory:/y\n",
            {f"{V1}/x/cpu.cfs_quota_us": "70000\n", f"{V1}/x/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        (
            "4:cpu,cpuacct:/x\n",
            {f"{V1}/x/cpu.cfs_quota_us": "-1\n", f"{V1}/x/cpu.cfs_period_us": "100000\n"},
            HERE,
        ),
    ],
)
def test_the_quota_of_a_container_limits_the_cores(
    tmp_path: Path, cgroup: str, files: dict[str, str], cores: int
) -> None:
    assert available_cores(machine(tmp_path, cgroup, files)) == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_the_affinity_of_the_process_limits_the_cores() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_has_set_for_openmp_stays(monkeypatch, name: str) -> None:
    for other in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "7")

    wait_briefly()

    kept = {it: os.environ.get(it) for it in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    assert {it for it in kept.values() if it} == {"7"}
