"""What a user installs: the wheel holds the bundled demo model, and it is small."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from llamakit import demo

ROOT = Path(__file__).parents[2]
LIMIT = 8_000_000


def demo_files() -> list[Path]:
    folder = demo.path()
    return [*folder.iterdir(), *folder.parent.glob("tokenizer*")]


def test_the_demo_model_is_split_8_ways_and_under_8_mb() -> None:
    files = demo_files()

    assert sum(file.name.startswith("consolidated.") for file in files) == 8
    assert sum(file.stat().st_size for file in files) < LIMIT


def test_its_checklists_are_right() -> None:
    for checklist in (
        demo.path() / "checklist.chk",
        demo.path().parent / "tokenizer_checklist.chk",
    ):
        lines = checklist.read_text().splitlines()
        assert lines
        for line in lines:
            md5, name = line.split("  ")
            assert hashlib.md5((checklist.parent / name).read_bytes()).hexdigest() == md5


def test_the_wheel_holds_it_and_the_entry_points(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "llamakit", "*.toml", "*.txt", "*.md"]
        + ["LICENSE", "setup.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())

    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
        + ["-q", "-w", str(tmp_path), str(source)],
        check=True,
        capture_output=True,
        timeout=180,
    )

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        written = archive.read(entry_points).decode()
    for file in demo_files():
        assert f"llamakit/{file.relative_to(demo.path().parents[1])}" in names
    for template in (ROOT / "llamakit/testing/templates").rglob("*.tmpl"):
        assert str(template.relative_to(ROOT)) in names
    assert "llamakit = llamakit.cli.main:main" in written
    assert "llamakit = llamakit.testing.pytest_plugin" in written
    assert "greedy = llamakit.plugins.samplers.greedy" in written
    assert "llamakit/serve/page/index.html" in names
    assert "llamakit/py.typed" in names
