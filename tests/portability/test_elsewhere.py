"""The checkpoint tools work in a Python without what Linux alone has; see ``elsewhere.py``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from llamakit import demo
from llamakit.demo.download_server import served

ROOT = Path(__file__).parents[2]
LINUX = re.compile(
    r"\bos\.(p?(?:read|write)v?|pwrite|preadv|fork\w*|killpg|sched_\w+|posix_\w+|get[eug]+id|"
    r"copy_file_range|sendfile|memfd_create|fchown|fchmod|O_[A-Z]+)\b"
    r"|\bmmap\.(MAP_\w+|MADV_\w+)|\bimport (fcntl|termios|resource|pwd|grp|tty|pty|readline)\b"
)
EVERYWHERE = {"read", "write", "O_RDONLY", "O_WRONLY", "O_RDWR", "O_CREAT", "O_EXCL", "O_APPEND"}
GUARDED = {
    "files/system_calls.py": "gives each a fallback",
    "cli/answer_stream.py": "asks the system for what it has",
    "cli/chat/line_history.py": "asks the system for what it has",
    "cores.py": "asks the system for what it has",
    "plugins/processors/grammar/time_limit.py": "its import is tried; a clock limits it elsewhere",
    "serve/body_worker.py": "its import is tried; the size of a body is the limit elsewhere",
    "cli/hidden_input.py": "its import is tried; one line is read with getpass elsewhere",
    "cli/chat/line_reader.py": "its import is tried; lines are not edited elsewhere",
    "checkpoint/hashing.py": "asks the system for what it has",
    "convert/disk.py": "asks the system for what it has",
    "runtime/stored_weights.py": "asks the system for what it has",
    "runtime/rank_links.py": "no ranks are started on Windows",
    "runtime/launch.py": "no ranks are started on Windows",
    "plugins/prompt_formats/jinja/render_process.py": "its import is tried; no limits elsewhere",
}
"""Where names of Linux may be, and why."""


def run_elsewhere(folder: Path, env: dict[str, str], *commands: str) -> str:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("elsewhere.py"), " + ".join(commands)],
        cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding="utf-8", check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_conversions_and_checks_need_nothing_of_linux(
    tmp_path: Path, isolated: dict[str, str]
) -> None:
    (tmp_path / "empty").mkdir()

    said = run_elsewhere(
        tmp_path, isolated,
        f"reshard {demo.path()} two -n 2", "reshard two new -n 1 --plan",
        f"reshard {demo.path()} two -n 4 --force", "verify --deep two", "inspect two",
        "export two hf", "export two safe --format safetensors", "import hf back",
        f"diff two {demo.path()}", "diff hf back", f"reshard {demo.path()} empty -n 2",
    )  # fmt: skip

    assert said.count("all good") == 1
    assert said.count("equal in every byte") == 2
    left = [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert left == []
    assert len([*(tmp_path / "two").glob("*.pth")]) == 4
    assert len([*(tmp_path / "empty").glob("*.pth")]) == 2


def test_a_download_needs_nothing_of_linux(tmp_path: Path, isolated: dict[str, str]) -> None:
    with served(demo.path().parent) as link:
        env = {**isolated, "LLAMAKIT_URL": link}

        run_elsewhere(tmp_path, env, "download demo", "download demo", f"verify {demo.NAME}")

    assert not [*tmp_path.rglob("*.part*")]
    assert (tmp_path / demo.NAME / "params.json").read_bytes() == (
        demo.path() / "params.json"
    ).read_bytes()


def test_names_of_linux_are_where_they_have_a_fallback() -> None:
    package = ROOT / "llamakit"

    found = {
        (path.relative_to(package).as_posix(), name)
        for path in package.rglob("*.py")
        for names in LINUX.findall(path.read_text("utf-8"))
        for name in names
        if name and name not in EVERYWHERE
    }

    assert {file for file, _ in found} - GUARDED.keys() == set(), sorted(found)
