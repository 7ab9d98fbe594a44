"""The sampler tutorial, done as it is written: every block in order, in a fresh environment."""

from __future__ import annotations

import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llamakit.testing import check_sampler

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "sampler-plugin.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`([\w./-]+\.(?:py|toml|yml))`")
NOT_RUN = ("pip install build twine", "python -m build", "twine upload")
"""What publishes. It needs a network and an account, so it is shown and not executed."""
Variables = Callable[[Path], "dict[str, str]"]
GREEDY = 'llamakit generate --temperature 0 --max-new-tokens 40 "Once upon a time"'


class Step(NamedTuple):
    """One thing that the page has its reader do."""

    language: str
    text: str
    file: str
    """The file that the text before the block names last."""


def steps() -> list[Step]:
    page = PAGE.read_text("utf-8")
    found = []
    for match in BLOCK.finditer(page):
        names = FILE.findall(page[: match.start()])
        found.append(Step(match[1], match[2], names[-1] if names else ""))
    return found


class Done(NamedTuple):
    """What came of the page."""

    folder: Path
    """The plugin's."""
    answers: list[tuple[str, subprocess.CompletedProcess[str]]]
    """Each command line, and what it has answered; some are typed several times."""

    def last(self, words: str) -> subprocess.CompletedProcess[str]:
        """Return the last answer to a line that holds these words."""
        return [answer for line, answer in self.answers if words in line][-1]


@pytest.fixture(scope="module")
def done(variables: Variables, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Do every step of the page."""
    home = tmp_path_factory.mktemp("home")
    env = variables(home)
    folder, answers = home, []
    for step in steps():
        if step.language in ("python", "toml"):
            (folder / step.file).write_text(step.text, "utf-8")
        for line in step.text.splitlines() if step.language == "console" else ():
            if line.startswith("cd "):
                folder /= line.removeprefix("cd ")
            elif not line.startswith(NOT_RUN):
                answers.append((line, run(line, folder, env)))
    return Done(folder, [*answers, (GREEDY, run(GREEDY, folder, env))])


def run(line: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def test_every_command_of_the_page_ends_well(done):
    lines = [line for line, _ in done.answers]

    assert len(lines) > 15
    for line, answer in done.answers:
        if "rank=0" not in line:
            assert answer.returncode == 0, f"{line}\n{answer.stdout}{answer.stderr}"
            assert "Traceback" not in answer.stderr, line
            assert "llamakit: error" not in answer.stderr, line


def test_the_first_place_is_the_greedy_story_and_the_second_is_not(done):
    first, second = done.last("rank=1"), done.last("--sampler nth --max")

    assert first.stdout == done.last(GREEDY).stdout
    assert second.stdout not in ("", first.stdout)


def test_the_error_is_the_one_that_the_page_shows(done):
    (message,) = (step.text for step in steps() if step.language == "text")
    answer = done.last("rank=0")

    assert (answer.returncode, answer.stderr) == (2, message)


def test_the_chat_takes_the_sampler_on_the_way(done):
    answer = done.last("llamakit chat")

    assert "sampler nth" in answer.stderr
    assert len(answer.stdout.splitlines()) >= 2


def test_the_tests_of_the_page_pass_and_both_plugins_are_listed(done):
    passed = [
        re.findall(r"(\d+) passed", answer.stdout)
        for line, answer in done.answers
        if line == "python -m pytest"
    ]
    listings = [answer.stdout for line, answer in done.answers if line == "llamakit plugins"]

    assert passed == [["5"], ["6"], ["8"]]
    listing = [" ".join(line.split()) for line in listings[-1].splitlines()]
    assert "nth llamakit-nth 0.1.0 ok sampler nth" in listing
    assert "tempered llamakit-nth 0.1.0 ok sampler tempered" in listing


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        (
            "[:, 0]\n",
            "returned Tensor (4, 1) torch.int64; expected (4,) int64 tokens",
        ),
        ("if rank < 1", "takes {'rank': -1} and fails when it is used"),
    ],
)
def test_the_checks_say_what_the_page_says_of_mistakes(gone, sentence):
    (source,) = (step.text for step in steps() if step.file == "llamakit_nth.py")
    assert gone in source
    assert sentence in " ".join(PAGE.read_text("utf-8").replace("`", "").split())
    broken = source.replace(gone, "\n" if gone.endswith("\n") else "if False")
    namespace: dict[str, Any] = {"__name__": "a_mistake"}
    exec(compile(broken, "llamakit_nth.py", "exec"), namespace)

    with pytest.raises(AssertionError, match=re.escape(sentence)):
        check_sampler(namespace["factory"])


def test_what_is_published_holds_both_modules(done):
    (wheel,) = (done.folder / "dist").glob("*.whl")

    with zipfile.ZipFile(wheel) as archive:
        modules = [name for name in archive.namelist() if name.endswith(".py")]

    assert sorted(modules) == ["llamakit_nth.py", "llamakit_tempered.py"]
    assert re.search(r"rank\s+int\s+2", done.last("show nth").stdout)


def test_only_publishing_is_not_executed():
    shown = [
        line for step in steps() if step.language == "console" for line in step.text.splitlines()
    ]

    assert [line for line in shown if line.startswith(NOT_RUN)] == [
        "pip install build twine",
        "python -m build",
        "twine upload dist/*",
    ]


def test_the_workflow_is_yaml():
    import yaml

    (step,) = (step for step in steps() if step.language == "yaml")

    workflow = yaml.safe_load(step.text)

    assert step.file.endswith("publish.yml")
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}
