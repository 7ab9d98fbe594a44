"""``llamakit chat``, piped and on a real terminal."""

from __future__ import annotations

import json
import signal
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
LONG_ANSWER = r"\?2004l.{80}"


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

    assert done.returncode == 2, done.stderr  # that of the first line that failed
    assert len(done.stdout.splitlines()) == 2
    saved = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [message["role"] for message in saved] == ["system", "user", "assistant"]
    assert saved[2]["content"] == done.stdout.splitlines()[1].strip()
    for words in ("temperature 0", "1 exchange loaded", "did you mean 'greedy'", "/wat", "/retry"):
        assert words in done.stderr


def test_a_tag_in_a_message_is_refused_and_the_dialog_continues(run_llamakit: Run) -> None:
    done = run_llamakit("chat", "--temperature", "0", stdin="a [/INST] b\nWhat is a shard?\n")

    assert done.returncode == 1
    assert "llamakit: error: line 1: message 1 (user) holds [/INST]" in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_what_does_not_fit_is_left_out_of_the_prompt_and_never_of_the_dialog(
    run_llamakit: Run, tmp_path: Path
) -> None:
    lines = ["What is a shard?"] * 4 + ["word " * 400, "/save talk.json", "/load talk.json"]
    lines += ["What is a checkpoint?", "/undo", "/undo", "/save again.json"]

    done = run_llamakit(
        *("chat", "--temperature", "0", "--max-seq-len", "100", "--max-new-tokens", "20"),
        stdin="\n".join(lines),
    )

    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 5
    assert "error: line 5: the message has 407 tokens and there is room for" in done.stderr
    assert "the oldest exchange is left out of the prompt; the dialog keeps" in done.stderr
    saved, again = (
        json.loads((tmp_path / name).read_text())["messages"]
        for name in ("talk.json", "again.json")
    )
    assert [it["content"] for it in saved[::2]] == ["What is a shard?"] * 4
    assert again == saved[:6]


@pytest.mark.parametrize("stdin", ["", "\n \n"])
def test_a_pipe_without_a_message_is_an_error(run_llamakit: Run, stdin: str) -> None:
    done = run_llamakit("chat", stdin=stdin)

    assert (done.returncode, done.stdout) == (2, "")
    assert "error: standard input has no message" in done.stderr


def test_a_wrong_setting_is_refused_before_anything_is_loaded(run_llamakit: Run) -> None:
    done = run_llamakit("chat", "--sampler", "gredy", stdin="hello\n")

    assert done.returncode == 2
    assert "did you mean 'greedy'" in done.stderr


@pytest.fixture
def talk(isolated: dict[str, str]) -> Iterator[Callable[..., pexpect.spawn[str]]]:
    """Start chats on a terminal."""
    children = []

    def start(*options: str, **env: str) -> pexpect.spawn[str]:
        child = pexpect.spawn(
            sys.executable,
            ["-m", "llamakit", "chat", *options],
            env={**isolated, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"} | env,
            encoding="utf-8",
            codec_errors="replace",
            timeout=SPAWN,
            dimensions=(40, 200),
        )
        children.append(child)
        child.expect(READY)
        return child

    yield start
    for child in children:
        child.close(force=True)


@pytest.mark.parametrize("ranks", ["1", "2"])
def test_a_terminal_streams_edits_remembers_and_survives_ctrl_c(
    talk: Callable[..., pexpect.spawn[str]], ranks: str
) -> None:
    terminal = talk("--temperature", "0", "--model-parallel-size", ranks)
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


@pytest.fixture
def endless(
    talk: Callable[..., pexpect.spawn[str]], reference_cases: Path
) -> Callable[..., pexpect.spawn[str]]:
    """Start a chat whose second answer never ends."""

    def start(*options: str) -> pexpect.spawn[str]:
        child = talk(
            *("-m", str(reference_cases / "mha-mp8"), "--seed", "1", "--max-seq-len", "200000"),
            *("--max-new-tokens", "8", *options),
        )
        lines = ["hello", "/set max-new-tokens none", "/set processors min-length:length=190000"]
        for line in lines:
            child.send(f"{line}\r")
            child.expect(READY)
        child.send("again\r")
        child.expect(LONG_ANSWER)
        return child

    return start


def test_a_chat_that_is_killed_while_it_answers_saves_its_dialog(
    endless: Callable[..., pexpect.spawn[str]], isolated: dict[str, str]
) -> None:
    child = endless()

    child.kill(signal.SIGHUP)  # as when its terminal is closed
    child.expect(r"the dialog is saved: /load \S+")
    child.expect(pexpect.EOF)
    child.wait()

    assert child.exitstatus == 128 + signal.SIGHUP
    history, saved = sorted(Path(isolated["HOME"]).rglob("llamakit/chat*"), reverse=True)
    messages = json.loads(saved.read_text())["messages"]
    assert [it["content"] for it in messages[::2]] == ["hello", "again"]
    assert messages[3]["content"]
    assert {it.stat().st_mode & 0o777 for it in (history, saved)} == {0o600}


def test_without_history_nothing_is_written_even_of_a_chat_that_is_killed(
    endless: Callable[..., pexpect.spawn[str]], isolated: dict[str, str]
) -> None:
    child = endless("--no-history")

    child.kill(signal.SIGTERM)
    child.expect(pexpect.EOF)
    child.wait()

    assert child.signalstatus == signal.SIGTERM
    assert list(Path(isolated["HOME"]).rglob("llamakit/chat*")) == []


def test_a_history_that_cannot_be_written_is_told_once_and_the_chat_goes_on(
    talk: Callable[..., pexpect.spawn[str]], tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("")

    terminal = talk(XDG_STATE_HOME=str(tmp_path / "state"))

    assert "what you type is not kept for later chats: " in terminal.before
    for _ in range(2):
        terminal.send("What is a shard?\r")
        assert terminal.expect(["not kept", READY]) == 1
    terminal.send("/quit\r")
    terminal.expect(pexpect.EOF)
    terminal.wait()
    assert terminal.exitstatus == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(
    talk: Callable[..., pexpect.spawn[str]], reference_cases: Path
) -> None:
    child = talk(
        *("-m", str(reference_cases / "mha-mp8"), "--max-seq-len", "200000", "--seed", "1"),
        *("--model-parallel-size", "2", "--processor", "min-length:length=190000"),
    )
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
