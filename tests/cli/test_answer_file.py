"""The file of answers: what it takes for answered, and what it never touches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamakit.cli.answer_file import AnswerFile, check_names, name_of
from llamakit.errors import DestinationError, FileFormatError
from llamakit.llama.prompts import Prompt

DIALOG = Prompt(dialog=[{"role": "user", "content": "你好"}], id="c")
PROMPTS = [Prompt("one"), Prompt("two"), DIALOG]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file that holds the answers to ``PROMPTS``."""
    with AnswerFile(tmp_path / "answers.jsonl") as file:
        for index, prompt in enumerate(PROMPTS):
            asked = (
                {"prompt": prompt.text} if prompt.dialog is None else {"messages": prompt.dialog}
            )
            file.append({"index": index, "id": name_of(prompt, index), **asked, "text": "ok"})
    return tmp_path / "answers.jsonl"


def held(path: Path) -> list[bool]:
    with AnswerFile(path) as file:
        return [file.has_answer(name_of(prompt, at), prompt) for at, prompt in enumerate(PROMPTS)]


def test_what_was_appended_is_held(path: Path) -> None:
    assert held(path) == [True, True, True]


@pytest.mark.parametrize("cut", [1, 5, 12, 30, 60])
def test_a_truncated_line_is_dropped_wherever_it_ends(path: Path, cut: int) -> None:
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:cut])

    assert held(path) == [True, True, False]

    assert path.read_bytes() == b"".join(lines[:2])


def test_a_last_line_that_lacks_only_its_end_is_kept(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole.removesuffix(b"\n"))

    assert held(path) == [True, True, True]

    assert path.read_bytes() == whole


def test_a_prompt_of_the_same_number_and_another_string_is_not_answered(path: Path) -> None:
    other = Prompt("another")

    with AnswerFile(path) as file:
        assert not file.has_answer(name_of(other, 0), other)


def test_an_id_of_another_prompt_is_an_error(path: Path) -> None:
    with (
        AnswerFile(path) as file,
        pytest.raises(FileFormatError, match="the answer to another prompt whose id is 'c'"),
    ):
        file.has_answer("c", Prompt("other", id="c"))


def test_two_prompts_of_one_id_are_an_error(path: Path) -> None:
    with pytest.raises(FileFormatError, match="two prompts have the id 'a'"):
        check_names([Prompt("one", id="a"), Prompt("two", id="a")], path)


def test_the_same_prompt_twice_has_two_ids(path: Path) -> None:
    check_names([Prompt("one"), Prompt("one")], path)


@pytest.mark.parametrize(
    "content", ["precious", "precious\n", '{"mine": 1}\n', "[1]\n", '{"index": 0, "id": 1}\n']
)
def test_a_file_of_something_else_is_never_touched(content: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(content)

    with pytest.raises(FileFormatError, match=r"mine\.txt, line 1: expected an answer"):
        AnswerFile(path)

    assert path.read_text() == content


def test_damage_in_the_middle_is_named_and_nothing_is_dropped(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = lines[0] + lines[1][:20] + b"\n" + lines[2]
    path.write_bytes(damaged)

    with pytest.raises(FileFormatError, match="line 2"):
        AnswerFile(path)

    assert path.read_bytes() == damaged


def test_two_programs_do_not_write_to_one_file(path: Path) -> None:
    with AnswerFile(path), pytest.raises(DestinationError, match="another llamakit is writing"):
        AnswerFile(path)


def test_every_line_is_on_disk_at_once(path: Path) -> None:
    with AnswerFile(path) as file:
        file.append({"index": 3, "id": "d", "prompt": "x", "text": "\u2028 \n"})

        assert json.loads(path.read_bytes().splitlines()[-1])["text"] == "\u2028 \n"


def test_a_full_disk_names_the_file_and_a_truncated_line_is_dropped_later(
    small_disk,
) -> None:
    path = small_disk(16 << 10) / "answers.jsonl"
    line = {"index": 0, "id": 0, "prompt": "one", "text": "x" * 10_000}

    with AnswerFile(path) as file:
        file.append(line)
        with pytest.raises(OSError, match=r"No space left on device.*answers\.jsonl"):
            file.append(line | {"index": 1, "id": 1})

    with AnswerFile(path) as file:
        assert len(file) == 1


def test_an_error_before_the_first_answer_leaves_no_file(tmp_path: Path) -> None:
    path, kept = tmp_path / "answers.jsonl", tmp_path / "kept.jsonl"
    kept.touch()

    for file in (path, kept):
        with pytest.raises(KeyError), AnswerFile(file):
            raise KeyError

    assert list(tmp_path.iterdir()) == [kept]


def test_a_file_that_another_process_removes_before_it_is_locked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.jsonl"
    monkeypatch.setattr(
        "llamakit.cli.answer_file.lock_file", lambda *_args, **_options: path.unlink()
    )

    with pytest.raises(DestinationError, match="was removed by another program just now"):
        AnswerFile(path)
