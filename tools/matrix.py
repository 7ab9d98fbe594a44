"""Run tests that need no torch on each Python from 3.10 on that the machine has.

Run as ``make matrix``; ``make matrix VERSIONS=3.13`` runs one. Each Python gets an environment of
its own in ``.matrix``, from the hashed locks, without torch.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUPPORTED = ("3.10", "3.11", "3.12", "3.13")
TESTS = (
    *("tests/checkpoint", "tests/convert", "tests/examine", "tests/download"),
    *(
        "tests/plugin_manager",
        "tests/packaging/test_pins.py",
        "tests/packaging/test_distribution.py",
    ),
)


def main() -> None:
    """Run every version, then print a line for each."""
    results = {version: run(version) for version in sys.argv[1:] or SUPPORTED}
    for version, result in results.items():
        print(f"matrix: {version} {result}")
    sys.exit(any(result == "FAILED" for result in results.values()))


def run(version: str) -> str:
    """Make the environment of a version and run the tests in it; say how it went."""
    python = find_python(version)
    if python is None:
        return "is not here"
    folder = ROOT / ".matrix" / version
    pip = [folder / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    locked = [*pip, "--require-hashes", "--no-deps"]
    commands = [
        [python, "-m", "venv", folder],
        [*locked, "-r", "locks/build.txt"],
        [*locked, "--no-build-isolation", "-r", "locks/test.txt"],
        [*pip, "--no-deps", "--no-build-isolation", "-e", "."],
        [folder / "bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider"],
    ]
    commands[-1] += TESTS
    print(f"matrix: {version}, {python}", flush=True)
    try:
        for command in commands:
            subprocess.run(command, cwd=ROOT, check=True)
    except subprocess.CalledProcessError:
        return "FAILED"
    return "passed"


def find_python(version: str) -> str | None:
    """Return a working interpreter: one on PATH, or one of pyenv's that it has not activated."""
    name = f"python{version}"
    environments = [os.environ]
    if shutil.which("pyenv"):
        whence = ["pyenv", "whence", name]
        listed = subprocess.run(whence, capture_output=True, text=True, check=False).stdout.split()
        environments += [os.environ | {"PYENV_VERSION": one} for one in listed]
    ask = [name, "-c", "import sys; print(sys.executable)"]
    for environment in environments if shutil.which(name) else []:
        answer = subprocess.run(ask, env=environment, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return answer.stdout.strip()
    return None


if __name__ == "__main__":
    main()
