"""Fixtures that all tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

INHERITED = ("LLAMAKIT_", "MASTER_", "TORCHELASTIC_")
RANKS = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "COLUMNS", "PYTHONPATH"}


@pytest.fixture(scope="session")
def reference_cases() -> Path:
    """The two small checkpoints, and what the reference implementation answered with them."""
    return Path(__file__).parent / "data" / "reference-cases"


@pytest.fixture
def isolated(tmp_path: Path) -> dict[str, str]:
    """An environment without settings of whoever runs the tests, and with a home of its own."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(INHERITED) and name not in RANKS
    }
    return {**kept, "HOME": str(home), "XDG_DATA_HOME": str(home), "PYTHONUTF8": "1"}


@pytest.fixture
def run_llamakit(isolated: dict[str, str], tmp_path: Path) -> Run:
    """Run ``llamakit`` in a process of its own, with ``tmp_path`` as its folder."""

    def run(
        *args: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout: float = 120,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "llamakit", *map(os.fspath, args)],
            env={**isolated, **(env or {})},
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            cwd=cwd or tmp_path,
            check=False,
        )

    return run
