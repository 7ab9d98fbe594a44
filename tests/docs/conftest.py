"""An environment in which a page's commands can be typed without a network."""

from __future__ import annotations

import site
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fork_server import fork_server, write_program

PIP = """#!/bin/sh
command=$1; shift
case "$command" in
uninstall) exec {python} -m pip uninstall --quiet "$@";;
*) exec {python} -m pip "$command" --quiet --no-index --no-deps --no-build-isolation \\
    --disable-pip-version-check "$@";;
esac
"""


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The programs of a new virtual environment that sees what is installed here.

    ``python`` and ``llamakit`` are forked from a process of that environment that has torch.
    """
    place = tmp_path_factory.mktemp("fresh")
    venv.create(place / "venv", symlinks=True)
    python = place / "venv" / "bin" / "python"
    (packages,) = (place / "venv" / "lib").glob("python*/site-packages")
    places = [*site.getsitepackages(), *(it for it in sys.path if it.endswith("site-packages"))]
    lines = [f"import site; site.addsitedir({place!r})" for place in dict.fromkeys(places)]
    (packages / "shared.pth").write_text("\n".join(lines) + "\n")
    folder = place / "bin"
    folder.mkdir()
    (folder / "pip").write_text(PIP.format(python=python))
    (folder / "pip").chmod(0o755)
    with fork_server(place, python) as address:
        write_program(folder / "python", address)
        write_program(folder / "llamakit", address, "-m", "llamakit")
        yield folder


@pytest.fixture(scope="session")
def variables(programs: Path, lean: dict[str, str]) -> Callable[[Path], dict[str, str]]:
    """Return the variables of a shell in that environment, with this home."""

    def variables(home: Path) -> dict[str, str]:
        path = f"{programs}:/usr/bin:/bin"
        return {"PATH": path, "HOME": str(home), "PYTHONUTF8": "1", **lean}

    return variables
