"""``llamakit generate --output``: answers on disk as they end, and going on after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def common(reference_cases: Path, tmp_path: Path) -> list[str]:
    """The words of a call that answers ``prompts.jsonl`` into ``answers.jsonl``."""
    return [
        *("generate", "-m", str(reference_cases / "gqa-mp1"), "--dtype", "float32"),
        *("--prompts", str(tmp_path / "prompts.jsonl")),
        *("--output", str(tmp_path / "answers.jsonl"), "--seed", "3", "--max-new-tokens", "5"),
    ]


def write_prompts(folder: Path, *prompts: object) -> None:
    lines = "".join(json.dumps(prompt) + "\n" for prompt in prompts)
    (folder / "prompts.jsonl").write_text(lines)


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_a_killed_run_resumes_and_ends_as_if_never_killed(
    common: list[str], run_llamakit: Run, isolated: dict[str, str], tmp_path: Path
) -> None:
    write_prompts(tmp_path, *(f"question {number % 37}" for number in range(40)))
    common += ["--max-new-tokens", "40", "--max-batch-size", "4"]
    file = tmp_path / "answers.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "llamakit", *common],
        env=isolated,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 180
    while not file.exists() or file.read_bytes().count(b"\n") < 1:
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)

    process.send_signal(signal.SIGKILL)
    process.wait()

    kept = file.read_bytes()
    assert 1 <= kept.count(b"\n") < 40
    done = run_llamakit(*common)
    assert done.returncode == 0, done.stderr
    assert file.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    count = kept.count(b"\n")
    assert f"{count} were in" in done.stderr
    found = sorted(answers(tmp_path), key=lambda answer: answer["index"])
    file.unlink()
    run_llamakit(*common)
    assert found == sorted(answers(tmp_path), key=lambda answer: answer["index"])
    assert [answer["index"] for answer in found] == list(range(40))


def test_nothing_is_loaded_when_all_answers_are_there(
    common: list[str], run_llamakit: Run, tmp_path: Path
) -> None:
    write_prompts(tmp_path, "one", "two")
    run_llamakit(*common)
    before = (tmp_path / "answers.jsonl").read_bytes()

    done = run_llamakit(*common, "--device", "cuda")

    assert done.returncode == 0, done.stderr
    assert "has all 2 answers already" in done.stderr
    assert (tmp_path / "answers.jsonl").read_bytes() == before


def test_answers_come_in_the_order_in_which_they_end(
    common: list[str], run_llamakit: Run, tmp_path: Path
) -> None:
    dialog = [{"role": "user", "content": "hello"}]
    write_prompts(tmp_path, {"messages": dialog, "id": 1}, "Once", {"prompt": "x", "seed": 9})

    done = run_llamakit(*common, "--draft", "prompt-lookup", "--logprobs")

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    found = {answer["index"]: answer for answer in answers(tmp_path)}
    assert found[0]["messages"] == dialog
    assert found[0]["id"] == 1
    assert found[1]["id"].startswith("1-")
    assert found[2]["seed"] == 9
    assert len(found[2]["logprobs"]) == 5
    assert found[2]["drafted"] >= found[2]["accepted"]


def test_a_prompt_that_is_too_long_is_named_before_any_is_answered(
    common: list[str], run_llamakit: Run, tmp_path: Path
) -> None:
    write_prompts(tmp_path, "one", "word " * 200)

    done = run_llamakit(*common, "--max-seq-len", "64")

    assert done.returncode == 1
    assert "prompt 2: the prompt has" in done.stderr
    assert not (tmp_path / "answers.jsonl").exists()
