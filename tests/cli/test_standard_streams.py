"""Commands work with closed streams, and refuse what is not UTF-8 in a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LLAMAKIT = f"exec {sys.executable} -m llamakit"


def shell(
    command: str, env: dict[str, str], stdin: bytes = b""
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["sh", "-c", command], env=env, input=stdin, capture_output=True, check=False, timeout=120
    )
    return subprocess.CompletedProcess(
        command, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


@pytest.mark.parametrize("closed", ["<&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_fault(closed: str, isolated: dict[str, str]) -> None:
    done = shell(f'{LLAMAKIT} generate "Once" --max-new-tokens 2 {closed}', isolated)

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_a_chat_with_closed_input_ends(isolated: dict[str, str]) -> None:
    done = shell(f"{LLAMAKIT} chat <&-", isolated)

    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


def test_a_line_that_is_no_utf_8_is_refused_and_the_chat_continues(
    isolated: dict[str, str],
) -> None:
    script = b"caf\xe9\n/system h\xfcllo\n/system fine\n/system\n"

    done = shell(f"{LLAMAKIT} chat", isolated, script)

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the line is not UTF-8 text: character 4 is '\\udce9'") == 1
    assert done.stderr.rstrip().endswith("system: fine")


@pytest.mark.parametrize("argument", ["-", r"$(printf 'caf\351')"])
def test_a_prompt_that_is_not_utf_8_is_refused(argument: str, isolated: dict[str, str]) -> None:
    done = shell(f'{LLAMAKIT} generate "{argument}"', isolated, b"caf\xe9")

    assert done.returncode == 1
    assert "is not UTF-8 text: character 4 is '\\udce9'" in done.stderr
    assert "Traceback" not in done.stderr


def test_prompts_that_are_not_utf_8_are_refused_with_their_line(
    isolated: dict[str, str], tmp_path: Path
) -> None:
    lines = b'{"prompt": "a"}\n{"prompt": "caf\xe9"}\n'
    (tmp_path / "prompts.jsonl").write_bytes(lines)

    done = [
        shell(f"{LLAMAKIT} generate --prompts {file}", isolated, lines)
        for file in (tmp_path / "prompts.jsonl", "-")
    ]

    assert [it.returncode for it in done] == [1, 1]
    assert all("line 2: not JSON (byte 15 is not UTF-8 text)" in it.stderr for it in done)
