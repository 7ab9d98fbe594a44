"""Commands work with closed streams, and refuse what is not UTF-8 in a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LLAMAKIT = f"exec {sys.executable} -m llamakit"


def shell(
    command: str, env: dict[str, str], stdin: bytes = b""
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["sh", "-c", command], env=env, input=stdin, capture_output=True, check=False, timeout=180
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

    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "standard input has no message" in done.stderr


def test_a_line_that_is_no_utf_8_is_refused_and_the_chat_continues(
    isolated: dict[str, str],
) -> None:
    script = b"caf\xe9\n/system h\xfcllo\n/system fine\n/system\n"

    done = shell(f"{LLAMAKIT} chat", isolated, script)

    assert done.returncode == 1, done.stderr
    assert done.stderr.count("the line is not UTF-8 text: character 4 is '\\udce9'") == 1
    assert done.stderr.rstrip().endswith("system: fine")


@pytest.mark.parametrize(
    "argument", ["-", r"$(printf 'caf\351')", r"""x" --stop "$(printf 'caf\351')"""]
)
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


ENCODED = """
import sys
from llamakit.cli import standard_streams
from llamakit.cli.main import run
standard_streams.prepare()
sys.stdout.write('["' + sys.argv[1] + '\\udc80"]')
sys.exit(run(["inspect", sys.argv[1]]))
"""


@pytest.mark.parametrize("encoding", ["cp1252", "cp437:strict", "latin-1", "iso8859_7"])
def test_json_stays_json_in_an_encoding_that_lacks_its_characters(
    encoding: str, isolated: dict[str, str]
) -> None:
    env = {**isolated, "PYTHONIOENCODING": encoding}

    done = subprocess.run(
        [sys.executable, "-c", ENCODED, "é上😀"], env=env, capture_output=True, check=False
    )

    name = encoding.partition(":")[0]
    assert json.loads(done.stdout.decode(name)) == ["é上😀\udc80"]
    assert json.loads(f'"{done.stderr.decode(name).strip()}"').endswith("no such folder: é上😀")
    assert done.returncode == 1


def test_a_step_of_the_demo_is_printed_in_the_encoding_of_its_output(
    isolated: dict[str, str], tmp_path: Path
) -> None:
    program = "from pathlib import Path; from llamakit.cli.demo import step; import sys; "
    program += "from llamakit.cli import standard_streams; standard_streams.prepare(); "
    program += 'step(Path(sys.argv[1]), "é", "generate", "--echo", "--max-new-tokens", "1", "×上")'

    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**isolated, "PYTHONIOENCODING": "cp1252"}, capture_output=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "\n×\\u4e0a" in done.stdout.decode("cp1252").replace("\r", "")


def test_a_prompt_is_read_as_utf_8_where_the_locale_has_ascii_alone(
    isolated: dict[str, str], reference_cases: Path
) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    model = f"-m {reference_cases / 'gqa-mp1'} --temperature 0 --max-new-tokens 2 --json"

    done = shell(
        f'{LLAMAKIT} generate {model} "上下" -', {**isolated, **ascii_only}, "上下".encode()
    )

    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [it["prompt"] for it in answers] == ["上下", "上下"]


def test_no_command_warns(isolated: dict[str, str], reference_cases: Path, tmp_path: Path) -> None:
    model = str(reference_cases / "gqa-mp1")
    commands = [
        ["--help"], ["inspect", model, "--json"], ["verify", "--deep", model],
        ["reshard", model, "two", "-n", "2"], ["export", "two", "hf"], ["import", "hf", "back"],
        ["diff", "two", "back"], ["plugins"], ["plugins", "--json"], ["plugins", "show", "top-p"],
        ["generate", "-m", model, "--max-new-tokens", "2", "--output", "answers.jsonl", "x"],
        ["generate", "-m", model, "--max-new-tokens", "2", "--regex", "[a-z]+", "--seed", "1", "x"],
        ["generate", "-m", model, "--max-new-tokens", "2", "--draft", "prompt-lookup", "x"],
        ["chat", "-m", model], ["moderate", "-m", model, "x"], ["nonsense"],
    ]  # fmt: skip
    program = f"from llamakit.cli.main import run\nprint([run(it) for it in {commands!r}])"

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, env=isolated,
        stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str([0] * 13 + [2, 1, 2]), done.stderr
    assert "Warning" not in done.stderr
