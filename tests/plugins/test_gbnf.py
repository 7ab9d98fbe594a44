"""Grammars in GBNF mean what they mean to llama.cpp, whose verdicts are in ``tests/data/gbnf``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rows_kit import ByteTokenizer, row

from llamakit.errors import OptionError, PromptError
from llamakit.plugins.processors.grammar import grammar

FOLDER = Path(__file__).parents[1] / "data" / "gbnf"
VERDICTS = json.loads((FOLDER / "verdicts.json").read_text(encoding="utf-8"))
MORE_THAN_LLAMA_CPP = (
    'root ::= "a"*+',
    'root ::= root "a" | "b"',
    'root ::= x "a"\nx ::= y\ny ::= x | "c"',
    'root ::= a_b\na_b ::= "x"',
)
"""What llama.cpp refuses and we read: left recursion, and underscores in names."""


TOKENIZER: Any = ByteTokenizer()


def verdict(text: str, strings: Sequence[str]) -> dict[str, list[str]]:
    """Sort strings by whether the grammar accepts them, their beginning, or neither."""
    constraint = grammar(TOKENIZER, text=text)
    sorted_: dict[str, list[str]] = {"accepted": [], "prefix": [], "refused": []}
    for string in strings:
        answer = row([256, *string.encode()], prompt_length=1, stop=[257])
        try:
            logits = constraint(torch.zeros(1, 258), [answer])
        except PromptError:
            sorted_["refused"].append(string)
        else:
            sorted_["accepted" if logits[0, 257] == 0 else "prefix"].append(string)
    return sorted_


@pytest.mark.parametrize("name", VERDICTS["files"])
def test_llama_cpps_example_grammars_accept_what_they_accept_there(name: str) -> None:
    expected = VERDICTS["files"][name]
    strings = [string for group in expected.values() for string in group]

    found = verdict((FOLDER / f"{name}.gbnf").read_text(encoding="utf-8"), strings)

    assert found == expected


@pytest.mark.parametrize("case", VERDICTS["small"], ids=lambda case: case["grammar"])
def test_small_grammars_mean_what_they_mean_to_llama_cpp(case: dict[str, Any]) -> None:
    if not case["valid"] and case["grammar"] not in MORE_THAN_LLAMA_CPP:
        with pytest.raises(OptionError, match=r"^the grammar cannot be used: .*"):
            grammar(TOKENIZER, text=case["grammar"])
        return

    found = verdict(case["grammar"], VERDICTS["strings"])

    if case["valid"]:
        assert found["accepted"] == case["accepted"]
        assert found["prefix"] == case["prefix"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('root ::= "a"\n\nstart :: "b"', "line 3: expected a rule, such as: root ::= "),
        ('root ::= "a" [b', "line 1: a string or a class has no end"),
        ('root ::= "a"\nb ::= ("c"', "line 2: expected )"),
        ("root ::= b\n", "line 1: there is no rule 'b'"),
        ('x ::= "a"', "no rule is called root, where GBNF begins"),
        ("root ::= [z-a]", "line 1: the range 'z' to 'a' is empty"),
        ('root ::= "\\ud800"', "line 1: 0xd800 is no character"),
        ('root ::= "a"{3,2}', "line 1: the count {3,2} cannot be met"),
        ('root ::= "a"{' + "9" * 5000 + "}", "line 1: more than 2000 repetitions"),
        ("root ::= " + "(" * 9000, "line 1: more than 100 brackets inside one another"),
        ("root ::= <think>", "line 1: tokens such as <think> are not supported"),
    ],
)
def test_a_malformed_grammar_is_one_sentence_with_the_line(text: str, expected: str) -> None:
    with pytest.raises(OptionError, match=re.escape(expected)):
        grammar(TOKENIZER, text=text)


def test_names_that_differ_in_case_or_a_hyphen_are_different_rules() -> None:
    text = 'root ::= a-b a_b Foo foo\na-b ::= "1"\na_b ::= "2"\nFoo ::= "3"\nfoo ::= "4"\n'

    assert verdict(text, ["1234", "1134"])["accepted"] == ["1234"]
