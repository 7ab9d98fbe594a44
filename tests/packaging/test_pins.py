"""The pins: one version a package on each Python, inside pyproject's ranges, hashed and alike."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PYTHONS = ("3.10.0", "3.10.13", "3.11.0", "3.11.7", "3.12.1", "3.13.0")
LOCKS = ("build", "run", "test")


def requirements(path: Path) -> list[Requirement]:
    """Read the requirements of a file, without their hashes."""
    lines = path.read_text("utf-8").splitlines()
    return [Requirement(line.rstrip(" \\")) for line in lines if line[:1].isalpha()]


def pins(path: Path, python: str) -> dict[str, str]:
    """Return the version of each package that a file names for one Python on Linux."""
    environment = {
        **default_environment(),
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    applying = [
        each
        for each in requirements(path)
        if each.marker is None or each.marker.evaluate(environment)
    ]
    found = {canonicalize_name(each.name): str(each.specifier).lstrip("=") for each in applying}
    assert len(found) == len(applying), "a package is pinned twice"
    return found


def required(*extras: str) -> list[Requirement]:
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    return [Requirement(line) for line in wanted]


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_pin_what_every_extra_asks_for_inside_its_range(python: str) -> None:
    pinned = pins(ROOT / "constraints.txt", python)

    for each in required(*PROJECT["project"]["optional-dependencies"]):
        version = pinned[canonicalize_name(each.name)]
        assert each.specifier.contains(version), f"{each} is pinned to {version}"


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_the_versions_of_the_constraints(lock: str, python: str) -> None:
    locked = pins(ROOT / "locks" / f"{lock}.txt", python)

    assert locked.items() <= pins(ROOT / "constraints.txt", python).items()


@pytest.mark.parametrize(("lock", "extras"), [("run", []), ("test", ["test"])])
def test_a_lock_has_all_that_is_required_but_torch(lock: str, extras: list[str]) -> None:
    locked = pins(ROOT / "locks" / f"{lock}.txt", "3.11.7")

    wanted = {canonicalize_name(each.name) for each in required(*extras)}

    assert wanted - locked.keys() == {"torch"}


def test_what_builds_the_package_is_locked_inside_its_range() -> None:
    locked = pins(ROOT / "locks" / "build.txt", "3.11.7")

    for each in map(Requirement, PROJECT["build-system"]["requires"]):
        assert each.specifier.contains(locked[canonicalize_name(each.name)])


@pytest.mark.parametrize("lock", [*LOCKS, "audit"])
def test_every_pin_of_a_lock_has_hashes(lock: str) -> None:
    text = (ROOT / "locks" / f"{lock}.txt").read_text("utf-8")

    names = re.findall(r"^[a-z][^\n]* \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)

    assert names
    assert len(names) == len(re.findall(r"^[a-z]", text, re.MULTILINE))


def test_nothing_of_cuda_is_pinned() -> None:
    for file in (ROOT / "constraints.txt", *(ROOT / "locks").iterdir()):
        assert not re.search("^(nvidia|triton|cuda)", file.read_text("utf-8"), re.MULTILINE), file


def test_every_python_that_the_project_claims_is_pinned() -> None:
    claimed = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))

    assert claimed
    assert set(claimed) == {python.rpartition(".")[0] for python in PYTHONS}
