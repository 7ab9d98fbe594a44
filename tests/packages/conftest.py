"""The packages of ``examples/plugins`` and ``packages``, really installed, in one environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from fork_server import can_be_forked, fork_server, run_forked
from plugin_packages import BRIDGES, EXAMPLES, ROOT

LEFT_BEHIND = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".*")
BUILD = """
import os, sys
from setuptools import build_meta
for folder in sys.argv[2:]:
    if os.fork() == 0:
        os.chdir(folder)
        build_meta.build_wheel(sys.argv[1])
        sys.exit()
    if os.wait()[1]:
        sys.exit(f"{folder} is not built")
"""
"""One process that has setuptools, where pip starts three for each package."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Environment:
    """An environment in which llamakit and these packages are installed."""

    folder: Path
    sources: Path
    """Copies of the packages, for their tests."""

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def llamakit(self) -> Path:
        return self.folder / "bin" / "llamakit"


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Make the environment once.

    Other packages than llamakit and these, pip too, are those of whoever runs the tests.
    """
    place = tmp_path_factory.mktemp("examples")
    made = Environment(place / "venv", place / "sources")
    copy_llamakit(place / "llamakit")
    for package in (*EXAMPLES, *BRIDGES):
        shutil.copytree(package, made.sources / package.name, ignore=LEFT_BEHIND)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made.folder], check=True)
    (site,) = made.folder.glob("lib/python*/site-packages")
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (site / "shared.pth").write_text("\n".join(shared), "utf-8")
    packages = [place / "llamakit", *sorted(made.sources.iterdir())]
    succeed(made.python, "-c", BUILD, place / "wheels", *packages)
    pip = [made.python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    wheels = [*(place / "wheels").glob("*.whl")]
    succeed(*pip, "--no-compile", "--disable-pip-version-check", *wheels)
    return made


def succeed(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def copy_llamakit(folder: Path) -> None:
    """Copy what llamakit is built from, so that building leaves nothing in the working tree."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "llamakit", folder / "llamakit", ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "entry_points.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)


@pytest.fixture(scope="session")
def environments_forks(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Where processes of the environment are to be had in which torch is imported already."""
    with fork_server(tmp_path_factory.mktemp("forks"), environment.python) as address:
        yield address


@pytest.fixture
def run(
    environment: Environment,
    environments_forks: Path,
    isolated: Mapping[str, str],
    tmp_path: Path,
) -> Run:
    """Run ``llamakit`` of the environment in ``tmp_path``; where it loads torch it is forked."""

    def run_llamakit(*args: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
        words = [*map(os.fspath, args)]
        if can_be_forked(words, {}):
            settings = {"env": isolated, "cwd": tmp_path, "stdin": "", "timeout": 300}
            return run_forked(environments_forks, ["-m", "llamakit", *words], **settings)
        return subprocess.run(
            [environment.llamakit, *words],
            env=isolated,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )

    return run_llamakit
