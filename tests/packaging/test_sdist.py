"""What the source distribution holds: the package, and all that its tests need."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".ci/", ".gitignore")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"


def test_the_sdist_holds_every_file_of_the_repository(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())

    subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path)], cwd=source, check=True, capture_output=True
    )

    (sdist,) = tmp_path.glob("llamakit_core-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert [name for name in tracked if name not in names and not name.startswith(LEFT_OUT)] == []
    assert not [name for name in names if "__pycache__" in name or name.startswith(".venv")]


def test_the_description_on_the_index_has_no_relative_link(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("README.md", "pyproject.toml", "setup.py", "entry_points.txt", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    (source / "llamakit").mkdir()
    distribution = ROOT / "llamakit" / "_distribution.py"
    (source / "llamakit" / "_distribution.py").write_bytes(distribution.read_bytes())
    (source / "llamakit" / "__init__.py").touch()

    subprocess.run(
        [sys.executable, "-c", BUILD.replace("build_sdist", "prepare_metadata_for_build_wheel")]
        + [str(tmp_path)],
        cwd=source,
        check=True,
        capture_output=True,
    )

    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    text = metadata.read_text("utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert "Description-Content-Type: text/markdown" in text
    assert len(links) > 30
    assert [link for link in links if not link.startswith("https://")] == []
