"""Random GBNF grammars accept what a recognizer of their meaning accepts, written apart from ours.

A grammar is made as a tree, from which both its text and the recognizer's answer come: the
positions at which a match of each part can end, computed as a least fixpoint, so that left
recursion, empty alternatives and loops over nothing need no care.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_kit import ByteTokenizer, row

from llamakit.errors import PromptError
from llamakit.plugins.processors.grammar import grammar

TOKENIZER: Any = ByteTokenizer()
ALPHABET = "aé."
STRINGS = ["".join(it) for size in range(4) for it in itertools.product(ALPHABET, repeat=size)]
RULES = ("root", "a-b", "a-B", "A-b")
"""Names that differ in case alone."""

Tree = tuple[Any, ...]
LEAVES = st.one_of(
    st.tuples(st.just("literal"), st.text(ALPHABET, max_size=2)),
    st.tuples(st.just("class"), st.sampled_from(["a", "é", "aé", "^a", "^.é", "\\u00e0-\\xff"])),
    st.just(("any",)),
    st.tuples(st.just("rule"), st.sampled_from(RULES)),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.just("sequence"), st.lists(inner, max_size=3)),
        st.tuples(st.just("choice"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(
            st.just("repeat"),
            inner,
            st.sampled_from([(0, None), (1, None), (0, 1), (2, 2), (1, 3), (0, 2), (2, None)]),
        ),
    ),
    max_leaves=6,
)
GRAMMARS = st.fixed_dictionaries(dict.fromkeys(RULES, TREES))
SIGNS = {(0, None): "*", (1, None): "+", (0, 1): "?", (2, 2): "{2}", (2, None): "{2,}"}


def text_of(tree: Tree) -> str:
    """Write a part of a grammar in GBNF."""
    kind, *rest = tree
    if kind == "literal":
        return f'"{rest[0]}"'
    if kind == "class":
        return f"[{rest[0]}]"
    if kind == "any":
        return "."
    if kind == "rule":
        return str(rest[0])
    if kind == "repeat":
        part, bounds = rest
        return f"({text_of(part)})" + SIGNS.get(bounds, f"{{{bounds[0]},{bounds[1]}}}")
    separator = " " if kind == "sequence" else " | "
    return f"({separator.join(map(text_of, rest[0]))})"


class Recognizer:
    """Where matches of a grammar's parts can end in one string."""

    def __init__(self, rules: dict[str, Tree], text: str) -> None:
        self.rules, self.text = rules, text
        self.ends: dict[tuple[str, int], set[int]] = {
            (name, start): set() for name in rules for start in range(len(text) + 1)
        }
        is_growing = True
        while is_growing:
            is_growing = False
            for (name, start), ends in self.ends.items():
                more = self.match(rules[name], start) - ends
                ends.update(more)
                is_growing |= bool(more)

    def accepts(self) -> bool:
        return len(self.text) in self.ends["root", 0]

    def match(self, tree: Tree, start: int) -> set[int]:
        kind, *rest = tree
        if kind == "literal":
            return {start + len(rest[0])} if self.text.startswith(rest[0], start) else set()
        if kind in ("class", "any"):
            pattern = f"[{rest[0]}]" if kind == "class" else "."
            return {start + 1} if re.compile(pattern, re.S).match(self.text, start) else set()
        if kind == "rule":
            return set(self.ends[rest[0], start])
        if kind == "choice":
            return set().union(*(self.match(part, start) for part in rest[0]))
        if kind == "sequence":
            return self.after(rest[0], {start})
        part, (least, most) = rest
        return self.repeated(part, start, least, most)

    def after(self, parts: list[Tree], starts: set[int]) -> set[int]:
        for part in parts:
            starts = set().union(*(self.match(part, start) for start in starts))
        return starts

    def repeated(self, part: Tree, start: int, least: int, most: int | None) -> set[int]:
        ends = self.after([part] * least, {start})
        reached = set(ends)
        # a match of more parts than the string has characters adds nothing new
        for _ in range(len(self.text) + 1 if most is None else most - least):
            ends = self.after([part], ends)
            reached |= ends
        return reached


def accepts(constraint: Any, text: str) -> bool:
    answer = row([256, *text.encode()], prompt_length=1, stop=[257])
    try:
        return bool(constraint(torch.zeros(1, 258), [answer])[0, 257] == 0)
    except PromptError:
        return False


def compare(rules: dict[str, Tree]) -> None:
    text = "\n".join(f"{name} ::= {text_of(tree)}" for name, tree in rules.items())
    expected = [string for string in STRINGS if Recognizer(rules, string).accepts()]
    if not expected:
        return  # the engine may refuse what no short string fits

    constraint = grammar(TOKENIZER, text=text)

    assert [string for string in STRINGS if accepts(constraint, string)] == expected


@settings(max_examples=15, derandomize=True)
@given(rules=GRAMMARS)
def test_a_random_grammar_accepts_what_it_means(rules: dict[str, Tree]) -> None:
    compare(rules)


@pytest.mark.soak
@settings(max_examples=3000)
@given(rules=GRAMMARS)
def test_thousands_of_random_grammars_accept_what_they_mean(rules: dict[str, Tree]) -> None:
    compare(rules)
