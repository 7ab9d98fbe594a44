"""Write constraints.txt and the hashed locks with ``uv pip compile``, for Python 3.10 and later.

Run as ``make pins``. What is pinned stays as it is while it fits; ``make pins UPGRADE=--upgrade``
takes the newest versions.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TORCH = "torch==2.13.0"
CONSTRAINTS = f"""\
# The versions that the tests run with, every extra included, for Python 3.10 to 3.13; written by
# `make pins`. pip leaves out what a package does not need on a platform. torch has no local part,
# so a CPU build (2.13.0+cpu) fits as well as PyPI's.
{TORCH}
"""
LOCK = """\
# What `make demo` and `make test` install, with hashes; written by `make pins`.
# torch is not here: the hash depends on the build. constraints.txt pins it.
"""
AUDIT = ("bandit[toml]", "pip-audit", "uv")
AUDIT_LOCK = """\
# What `make audit` and `make pins` install, with hashes, in an environment of its own; written by
# `make pins`.
"""


def main() -> None:
    """Write all files: the constraints first, since the locks keep to them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    upgrade = ["--upgrade"] if parser.parse_args().upgrade else []

    sources = ["pyproject.toml", "locks/torch.in"]
    write("constraints.txt", CONSTRAINTS, *sources, "--all-extras", *upgrade)
    fixed = ["--constraints", "constraints.txt", "--generate-hashes"]
    write("locks/run.txt", LOCK, *sources, *fixed)
    write("locks/test.txt", LOCK, *sources, *fixed, "--extra", "test")
    write("locks/build.txt", LOCK, "-", *fixed, stdin="\n".join(build_requirements()))
    write("locks/audit.txt", AUDIT_LOCK, "-", *fixed, *upgrade, stdin="\n".join(AUDIT))


def build_requirements() -> list[str]:
    """Return what builds the package itself, and what pip then needs no isolation for."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    listed = text.partition("[build-system]")[2].partition("requires = [")[2].partition("]")[0]
    return re.findall(r'"([^"]+)"', listed)


def write(name: str, header: str, *arguments: str, stdin: str = "") -> None:
    """Resolve for every platform and Python version, and write one file.

    Args:
        name: the file, relative to the root; what it pins is kept where it fits.
        header: the lines that it begins with.
        arguments: sources and options of ``uv pip compile``.
        stdin: requirements of the source ``-``.
    """
    options = ["--universal", "--python-version", "3.10", "--no-python-downloads", "--quiet"]
    output = ["--no-annotate", "--no-header", "--output-file", name]
    command = [sys.executable, "-m", "uv", "pip", "compile", *arguments, *options, *output]
    excluded = ROOT / "locks" / "excluded.txt"
    settings = dict(os.environ)
    if "PIP_CERT" in settings:  # uv does not read pip's settings
        settings.setdefault("SSL_CERT_FILE", settings["PIP_CERT"])
    subprocess.run(
        [*command, "--excludes", excluded],
        cwd=ROOT,
        env=settings,
        input=stdin,
        text=True,
        check=True,
    )
    path = ROOT / name
    path.write_text(header + path.read_text("utf-8"), "utf-8")


if __name__ == "__main__":
    main()
