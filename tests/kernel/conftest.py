"""Plugins of strangers, really installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[1] / "plugin_packages"


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Install one of ``tests/plugin_packages`` with pip, once a session; return its folder."""
    places: dict[str, Path] = {}

    def install_one(name: str) -> Path:
        if name not in places:
            source = tmp_path_factory.mktemp("source") / name
            shutil.copytree(PACKAGES / name, source)
            place = tmp_path_factory.mktemp(name)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
            flags = ["--no-build-isolation", "--disable-pip-version-check", "--target"]
            subprocess.run([*pip, *flags, place, source], check=True, capture_output=True)
            places[name] = place
        return places[name]

    return install_one


@pytest.fixture
def plugins(install: Callable[[str], Path]) -> Callable[..., dict[str, str]]:
    """Return the environment in which these packages are installed too."""

    def environment(*names: str) -> dict[str, str]:
        return {"PYTHONPATH": os.pathsep.join(str(install(name)) for name in names)}

    return environment
