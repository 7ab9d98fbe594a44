"""An environment in which a page's commands can be typed without a network."""

from __future__ import annotations

import site
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

OFFLINE = "--no-index --no-deps --no-build-isolation --disable-pip-version-check"


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment that sees what is installed here, and its programs."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = (folder / "lib").glob("python*/site-packages")
    places = [*site.getsitepackages(), *(it for it in sys.path if it.endswith("site-packages"))]
    lines = [f"import site; site.addsitedir({place!r})" for place in dict.fromkeys(places)]
    (packages / "shared.pth").write_text("\n".join(lines) + "\n")
    for name, words in {
        "llamakit": 'exec {python} -m llamakit "$@"',
        "pip": 'command=$1; shift; case "$command" in\n'
        'uninstall) exec {python} -m pip uninstall --quiet "$@";;\n'
        f'*) exec {{python}} -m pip "$command" --quiet {OFFLINE} "$@";;\nesac',
    }.items():
        program = folder / "bin" / name
        program.write_text(f"#!/bin/sh\n{words.format(python=python)}\n")
        program.chmod(0o755)
    return folder / "bin"


@pytest.fixture(scope="session")
def variables(environment: Path, lean: dict[str, str]) -> Callable[[Path], dict[str, str]]:
    """Return the variables of a shell in that environment, with this home."""

    def variables(home: Path) -> dict[str, str]:
        path = f"{environment}:/usr/bin:/bin"
        return {"PATH": path, "HOME": str(home), "PYTHONUTF8": "1", **lean}

    return variables
