"""``llamakit chat``, piped and on a real terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
SPAWN = 90
READY = r"\?2004h[^\r\n]*>"
"""What a line editor sends when it waits for a line."""
ANSWERING = r"\?2004l.{40}"
"""The line editor has finished, and what follows is the beginning of an answer."""


def test_answers_alone_are_on_stdout_when_piped(run_llamakit: Run) -> None:
    done = run_llamakit(
        "chat", "--temperature", "0", stdin="How do I verify a checkpoint?\n/undo\n"
    )

    assert done.returncode == 0, done.stderr
    assert "llamakit verify" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert "forgotten" in done.stderr


def test_with_drafts_the_answers_are_the_same_and_the_end_says_how_many_were_right(
    run_llamakit: Run,
) -> None:
    questions = "What is a shard?\n" * 2
    plain = run_llamakit("chat", "--temperature", "0", stdin=questions)

    done = run_llamakit("chat", "--temperature", "0", "--draft", "prompt-lookup", stdin=questions)

    assert done.returncode == 0, done.stderr
    assert done.stdout == plain.stdout
    assert "drafted tokens were accepted (" in done.stderr.splitlines()[-1]


def test_every_slash_command(run_llamakit: Run, tmp_path: Path) -> None:
    script = "\n".join(
        [
            "/system Answer in one sentence.",
            "What is a shard?",
            "/set temperature 0",
            "/retry",
            "/save talk.json",
            "/reset",
            "/load talk.json",
            "/undo",
            "/set",
            "/set sampler gredy",
            "/wat",
            "/help",
            "/quit",
            "never asked",
        ]
    )

    done = run_llamakit("chat", stdin=script)

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    saved = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [message["role"] for message in saved] == ["system", "user", "assistant"]
    assert saved[2]["content"] == done.stdout.splitlines()[1].strip()
    for words in ("temperature 0", "1 exchange loaded", "did you mean 'greedy'", "/wat", "/retry"):
        assert words in done.stderr


def test_a_tag_in_a_message_is_refused_and_the_dialog_continues(run_llamakit: Run) -> None:
    done = run_llamakit("chat", "--temperature", "0", stdin="a [/INST] b\nWhat is a shard?\n")

    assert done.returncode == 0
    assert "[/INST]" in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_the_oldest_exchange_is_dropped_when_the_context_is_full(run_llamakit: Run) -> None:
    questions = "What is a shard?\n" * 4

    done = run_llamakit(
        *("chat", "--temperature", "0", "--max-seq-len", "100", "--max-new-tokens", "20"),
        stdin=questions,
    )

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    assert "the oldest exchange was dropped" in done.stderr


def test_a_wrong_setting_is_refused_before_anything_is_loaded(run_llamakit: Run) -> None:
    done = run_llamakit("chat", "--sampler", "gredy", stdin="hello\n")

    assert done.returncode == 2
    assert "did you mean 'greedy'" in done.stderr


@pytest.fixture(params=[1, 2])
def terminal(
    request: pytest.FixtureRequest, isolated: dict[str, str]
) -> Iterator[pexpect.spawn[str]]:
    """Return a chat on a terminal, on one rank or two."""
    child = pexpect.spawn(
        sys.executable,
        ["-m", "llamakit", "chat", "--temperature", "0"]
        + ["--model-parallel-size", str(request.param)],
        env={**isolated, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        encoding="utf-8",
        timeout=SPAWN,
        dimensions=(40, 200),
    )
    yield child
    child.close(force=True)


def test_a_terminal_streams_edits_remembers_and_survives_ctrl_c(
    terminal: pexpect.spawn[str],
) -> None:
    terminal.expect(READY)
    terminal.send("How do I verify a checkpointX\b \b?")  # a typing error, corrected
    terminal.send("\r")
    terminal.expect("llamakit verify")
    terminal.expect(READY)

    terminal.send("/set seed 1\r")
    terminal.expect("seed 1")
    terminal.expect(READY)
    terminal.send("\x03")  # Ctrl-C at the prompt ends nothing
    terminal.expect("ends the chat")
    terminal.expect(READY)

    terminal.send("\x1b[A\x1b[A\r")  # the line before the last, from the history
    terminal.expect("llamakit verify")
    terminal.expect(READY)
    terminal.send("\x04")  # Ctrl-D
    terminal.expect(pexpect.EOF)
    terminal.wait()
    assert terminal.exitstatus == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(
    isolated: dict[str, str], reference_cases: Path
) -> None:
    never_ends = ["--processor", "min-length:length=190000"]
    child = pexpect.spawn(
        sys.executable,
        ["-m", "llamakit", "chat", "-m", str(reference_cases / "mha-mp8")]
        + ["--max-seq-len", "200000", "--model-parallel-size", "2", "--seed", "1", *never_ends],
        env={**isolated, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        encoding="utf-8",
        codec_errors="replace",
        timeout=SPAWN,
        dimensions=(40, 200),
    )
    try:
        child.expect(READY)
        child.send("hello\r")
        child.expect(ANSWERING)
        child.sendintr()
        child.expect("stopped")
        child.expect(READY)
        child.send("/undo\r")
        child.expect("the last exchange is forgotten")
        child.expect(READY)
        child.send("again\r")
        child.expect(ANSWERING)
        child.sendintr()
        child.expect("stopped")
        child.expect(READY)
        child.send("/quit\r")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 0
    finally:
        child.close(force=True)
