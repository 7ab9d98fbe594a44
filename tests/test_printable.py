"""Foreign text is printed on one line, without what a terminal obeys, and cut."""

from __future__ import annotations

import json

import pytest

from llamakit.printable import listed, printable, printable_json, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("layers.0.attention.wq.weight", "layers.0.attention.wq.weight"),
        ("größe 中文", "größe 中文"),
        ("\x1b]0;gone\x07\x1b[2J", r"\x1b]0;gone\x07\x1b[2J"),
        ("a\nllamakit: all good\r", r"a\nllamakit: all good\r"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("\ud800", r"\ud800"),
        ("a" * 161, "a" * 160 + "…"),
    ],
)
def test_what_a_terminal_obeys_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_stay_where_they_are_meant() -> None:
    assert printable_lines("a\x1b\nb\u2028c") == "a\\x1b\nb\\u2028c"


def test_json_stays_the_same_value() -> None:
    value = {"\x9b\u202e\U000e0041": ["\ud800", "é\n\t中", "\x7f"]}

    text = printable_json(json.dumps(value, indent=1, ensure_ascii=False))

    assert json.loads(text) == value
    assert text.replace("\n", "").isprintable()


def test_a_long_list_names_the_first_and_counts_the_rest():
    assert listed(["a", "b\x1b", "c" * 9], most=2) == r"a, b\x1b and 1 more"
    assert listed(["a", "b"], most=2) == "a, b"
    assert listed(["a", "ccc"], max_length=2) == "a, cc…"
