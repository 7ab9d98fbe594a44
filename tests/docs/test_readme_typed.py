"""The README typed from top to bottom in one session; only what fetches is left out."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
Variables = Callable[[Path], "dict[str, str]"]
ALREADY_DONE = ("make ", "source .venv/bin/activate")
"""What installs, from a network: the environment of the tests stands in for it."""


def typed() -> str:
    """Return one script of all that the page has its reader type."""
    lines = ["set -e"]
    for language, text in BLOCK.findall(README.read_text("utf-8")):
        if language == "console":
            lines += [line for line in text.splitlines() if not line.startswith(ALREADY_DONE)]
        elif language == "python" and "@hookimpl" not in text:  # those are files of a plugin
            lines += ["python - <<'PYTHON'", text.rstrip(), "PYTHON"]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def session(
    variables: Variables, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    home = tmp_path_factory.mktemp("home")
    return subprocess.run(
        ["bash", "-c", typed()],
        cwd=home,
        env=variables(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )


def test_every_command_of_the_readme_works_in_one_session(session) -> None:
    assert session.returncode == 0, session.stderr[-2000:]
    assert "Traceback" not in session.stderr


def test_the_commands_say_what_the_readme_promises(session) -> None:
    assert "all good" in session.stdout
    assert "parameters are equal in every byte" in session.stdout
    assert "wrote demo-mp4" in session.stdout
    assert "sampler runner-up" in session.stdout
    assert "llamakit verify" in session.stdout  # the chat's answer


@pytest.mark.parametrize(("more", "printing"), [({}, 1), ({"LLAMAKIT_PRINT_ALL_RANKS": "1"}, 2)])
def test_the_readmes_script_prints_on_rank_0_alone_unless_asked(
    more: dict[str, str], printing: int, programs: Path, variables: Variables, tmp_path: Path
) -> None:
    (script,) = (
        text
        for language, text in BLOCK.findall(README.read_text("utf-8"))
        if language == "python" and "Llama.build" in text
    )
    (tmp_path / "story.py").write_text(script, "utf-8")

    done = subprocess.run(
        [programs / "python", "-m", "torch.distributed.run", "--standalone"]
        + ["--redirects", "1", "--log-dir", "logs", "--nproc_per_node", "2", "story.py"],
        cwd=tmp_path,
        env=variables(tmp_path) | more | {"PYTHON_EXEC": str(programs / "python")},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=180,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    printed = [it.read_text("utf-8") for it in (tmp_path / "logs").glob("**/stdout.log")]
    answers = [text for text in printed if text]
    assert len(answers) == printing
    assert len(answers[0].splitlines()) == 2  # the answer, and the stream without a line's end


def test_nothing_is_typed_before_it_is_there() -> None:
    """Blocks in `sh` need a network or files of one's own; those in `console` need neither."""
    assert not re.search(r"llama-2-\d+b|download \d", typed())
