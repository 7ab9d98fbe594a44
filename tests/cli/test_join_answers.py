"""``generate --part`` and ``join-answers``: the parts are the whole, each answer once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from llamakit.cli.answer_file import AnswerFile
from llamakit.cli.join_answers import join_answers
from llamakit.cli.part_option import Part, PartType
from llamakit.errors import DestinationError, FileFormatError, LlamakitError

Run = Callable[..., subprocess.CompletedProcess[str]]
Write = Callable[..., Path]
MADE_BY = {"model": "m", "weights": "w1", "tokenizer": "t", "seed": 5}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of answers to questions of these numbers."""

    def write_answers(name: str, numbers: Sequence[int], **changed: object) -> Path:
        lines = [
            {"index": it, "id": f"q{it}", "prompt": f"{it}?", "seed": 5, "settings": MADE_BY}
            for it in numbers
        ]
        text = "".join(json.dumps({**line, **changed}) + "\n" for line in lines)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write_answers


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(f'{{"id": "q{it}", "prompt": "{it}?"}}\n' for it in range(6)))
    return path


def join(*words: object) -> str:
    """Join, and return what was printed."""
    return CliRunner().invoke(join_answers, [*map(str, words)], catch_exceptions=False).output


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["index"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("total", "count"), [(0, 1), (1, 4), (7, 3), (12, 4)])
def test_every_prompt_is_in_one_part_and_stays_there_when_others_are_added(
    total: int, count: int
) -> None:
    parts = [Part(number, count) for number in range(1, count + 1)]

    assert sorted(it for part in parts for it in part.indexes(total)) == list(range(total))

    for part in parts:
        assert list(part.indexes(total)) == [it for it in part.indexes(total + 9) if it < total]


@pytest.mark.parametrize(
    "typed", ["0/4", "5/4", "1/0", "-1/4", "/4", "1/", "2", "1/4/2", "٢/4", ""]
)
def test_a_part_that_is_not_there_is_refused(typed: str) -> None:
    with pytest.raises(click.BadParameter, match=r"no part.*(I/N|count from 1)"):
        PartType().convert(typed, None, None)


def test_a_part_is_printed_with_the_numbers_of_the_whole(
    run_llamakit: Run, reference_cases: Path
) -> None:
    common = ("generate", "-m", str(reference_cases / "gqa-mp1"), "--max-new-tokens", "1", "--json")

    done = run_llamakit(*common, "--part", "2/3", "a b", "b", "c", "d", "e")
    none = run_llamakit(*common, "--part", "3/3", "a b", "b")

    assert [json.loads(line)["index"] for line in done.stdout.splitlines()] == [1, 4]
    assert (none.returncode, none.stdout) == (0, "")
    assert "part 3/3 of 2 prompts has none" in none.stderr


def test_answers_come_in_the_order_of_the_questions(
    write: Write, questions: Path, tmp_path: Path
) -> None:
    parts = write("a", [4, 1]), write("b", [2, 5]), write("c", [3, 0]), write("empty", [])
    out = tmp_path / "out.jsonl"

    join(*parts, "--output", out)

    assert numbers(out) == [0, 1, 2, 3, 4, 5]

    questions.write_text("".join(reversed(questions.read_text().splitlines(keepends=True))))
    summary = json.loads(join(*parts, "--output", out, "--prompts", questions, "--json"))

    assert numbers(out) == [5, 4, 3, 2, 1, 0]
    assert summary["answers"] == 6
    assert [*summary["parts"].values()] == [2, 2, 2, 0]
    assert summary["settings"] == MADE_BY


def test_parts_without_any_answer_are_refused(write: Write, tmp_path: Path) -> None:
    parts = write("a", []), write("b", [])

    with pytest.raises(FileFormatError, match=r"no answer is in .*/a, .*/b: name all parts"):
        join(*parts, "--output", tmp_path / "out.jsonl")

    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    "typed",
    [("a", "--output", ""), ("", "--output", "o"), ("a", "--prompts", "", "--output", "o")],
)
def test_an_empty_name_of_a_file_is_refused(typed: tuple[str, ...]) -> None:
    assert "the name is empty: pass that of a file" in join(*typed)


def test_more_files_than_may_be_open_are_joined(write: Write, tmp_path: Path) -> None:
    parts = [write(f"p{it}", [it, it + 70]) for it in range(70)]

    join(*parts, "--output", tmp_path / "out.jsonl")

    assert numbers(tmp_path / "out.jsonl") == list(range(140))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ('{"id": "q1", "prompt": "else?"}', "answers another prompt, or seed, with the id 'q1'"),
        ('{"id": "q1", "prompt": "1?", "seed": 6}', "answers another prompt, or seed, with"),
        ('{"id": "q0", "prompt": "0?"}', "two prompts have the id 'q0'"),
        ('{"id": "q7", "prompt": "7?"}', r"1 answer is missing: 'q7'\."),
        ("", "has the answer to a prompt that .* does not have, one of 1"),
    ],
)
def test_answers_that_are_not_those_of_the_questions_are_refused(
    asked: str, message: str, write: Write, questions: Path, tmp_path: Path
) -> None:
    part = write("a", [0, 1])
    questions.write_text('{"id": "q0", "prompt": "0?", "seed": 5}\n' + asked)

    with pytest.raises(LlamakitError, match=message):
        join(part, "--prompts", questions, "--output", tmp_path / "out.jsonl")


def test_only_a_file_of_answers_is_replaced(write: Write, questions: Path, tmp_path: Path) -> None:
    part, out = write("a", range(6)), write("old", [9])
    (tmp_path / "mine.txt").write_text("precious")
    asked = ("--prompts", questions, "--output")

    for taken, message in (
        (part, "one of the files that are read"),
        (questions, "one of the files that are read"),
        (tmp_path / "mine.txt", "no file of answers"),
    ):
        before = taken.read_text()
        with pytest.raises(LlamakitError, match=message):
            join(part, *asked, taken)
        assert taken.read_text() == before
    join(part, *asked, out)

    assert out.read_text() == part.read_text()


def test_a_part_that_is_cut_off_twice_there_or_being_written_is_refused(
    write: Write, tmp_path: Path
) -> None:
    part, out = write("a", [0, 1]), tmp_path / "out.jsonl"
    (tmp_path / "cut").write_text(part.read_text()[:-20])
    (tmp_path / "link").symlink_to(part)

    with pytest.raises(FileFormatError, match=r"cut, line 2 is cut off: run its command again"):
        join(tmp_path / "cut", "--output", out)
    with pytest.raises(FileFormatError, match="is named twice"):
        join(part, tmp_path / "link", "--output", out)
    with AnswerFile(part), pytest.raises(DestinationError, match="another llamakit is writing"):
        join(part, "--output", out)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"numbers": [1, 3]}, r"1 answer is missing: question 5\."),
        ({"numbers": []}, r"1 answer is missing: question 2\."),
        ({"numbers": [1, 3, 4, 2]}, r"line 4: the id 'q2' has an answer in .*a too"),
        ({"numbers": [1, 3, 9**9]}, r"387420485 answers are missing: question 5, .*7 …"),
        ({"numbers": [1, 3], "id": "q9"}, r"line 2: the id 'q9' has an answer in .*b too"),
        ({"numbers": [2], "id": "q9"}, r"question 3 has two answers, with two ids"),
        ({"numbers": [1], "index": -1}, r"index is -1; expected a question's number"),
        ({"numbers": [1], "index": 10**30}, r"index is 1000.*; expected a question's number"),
        ({"numbers": [1], "index": True}, r"index is True; expected a question's number"),
        ({"numbers": [1], "settings": MADE_BY | {"weights": "w2"}}, "made otherwise: model m, not"),
        ({"numbers": [1], "settings": MADE_BY | {"seed": 6}}, "made otherwise: seed 5, not 6"),
        ({"numbers": [1], "digest": 7}, r"b, line 1: expected an answer"),
        ({"numbers": [1], "id": [1]}, r"b, line 1: expected an answer with an id"),
    ],
)
def test_what_is_no_whole_is_refused_and_nothing_is_written(
    changed: dict[str, object], message: str, write: Write, tmp_path: Path
) -> None:
    given = changed.pop("numbers")
    parts = (
        write("a", [0, 2, 5] if given == [1, 3] and not changed else [0, 2]),
        write("b", given, **changed),
    )

    with pytest.raises(LlamakitError, match=message):
        join(*parts, "--output", tmp_path / "out.jsonl")

    assert not (tmp_path / "out.jsonl").exists()
