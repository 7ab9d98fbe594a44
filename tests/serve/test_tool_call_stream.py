"""Calls found in an answer while it is written, however it is cut into pieces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamakit.llama.tool_call_reader import read_answer
from llamakit.serve.chat_prompt import AnswerTools
from llamakit.serve.tool_call_stream import Piece, ToolCallStream, whole_calls

CALL = '{"name": "f", "parameters": {"a": "}\\"{", "b": [1, {}]}}'
ARGUMENTS = {"a": '}"{', "b": [1, {}]}


def read(tokens: Sequence[int]) -> Any:
    return read_answer("".join(map(chr, tokens)))


def pieces_of(
    text: str, cuts: Sequence[int] = (), finish: str = "stop", **tools: Any
) -> list[Piece]:
    """Feed an answer, cut at some places; one character is one token."""
    stream = ToolCallStream(AnswerTools(read, **tools))
    pieces: list[Piece] = []
    for place, sign in enumerate(text):
        start = max((cut for cut in cuts if cut <= place), default=0)
        is_last = place + 1 in cuts or place + 1 == len(text)
        pieces += stream.feed(text[start : place + 1] if is_last else "", ord(sign))
    return pieces + stream.end(finish)


def text_of(pieces: Sequence[Piece]) -> str:
    return "".join(it.text for it in pieces if it.kind == "text")


def calls_of(pieces: Sequence[Piece]) -> list[tuple[str, Any]]:
    return [(it["name"], json.loads(it["arguments"])) for it in whole_calls(pieces)]


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (CALL, "", [("f", ARGUMENTS)]),
        (f"\n{CALL}; {CALL}", "", [("f", ARGUMENTS)] * 2),
        (f"[{CALL}, {CALL}]", "", [("f", ARGUMENTS)] * 2),
        ('{"type": "function", "name": "f", "parameters": {}}', "", [("f", {})]),
        ('{"type": "function", "function": {"name": "f", "arguments": {}}}', "", [("f", {})]),
        ('{"parameters": {"x": 1}, "name": "f"}', "", [("f", {"x": 1})]),
        ('{"name": "f", "parameters": "{}"}', "", [("f", {})]),
        ('[f(x=1), g(y="z")]', "", [("f", {"x": 1}), ("g", {"y": "z"})]),
        ('Well: <function=f>{"x": 1}</function>', "Well: ", [("f", {"x": 1})]),
        (
            'Well: <tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>',
            "Well: ",
            [("f", {"x": 1})],
        ),
        ('search.call(query="a")', "", [("search", {"query": "a"})]),
        ("Plain text, a < b.", "Plain text, a < b.", []),
        ('{"city": "Rome"}', '{"city": "Rome"}', []),
        ("[1] says so", "[1] says so", []),
        ('{"name": "Bob", "age": 3}', '{"name": "Bob", "age": 3}', []),
        ("", "", []),
    ],
)
@given(cuts=st.lists(st.integers(1, 80)))
def test_an_answer_is_separated_however_it_is_cut(
    text: str, content: str, calls: Any, cuts: list[int]
) -> None:
    pieces = pieces_of(text, cuts)

    assert text_of(pieces) == content
    assert calls_of(pieces) == calls


def test_arguments_come_as_they_are_written() -> None:
    stream = ToolCallStream(AnswerTools(read))

    begun = stream.feed('{"name": "f", "parameters": {"a": "x', None)
    more = stream.feed("y", None)

    assert [(it.kind, it.text) for it in begun] == [("name", "f"), ("arguments", '{"a": "x')]
    assert [(it.kind, it.text) for it in more] == [("arguments", "y")]


def test_text_that_cannot_be_a_call_comes_at_once() -> None:
    stream = ToolCallStream(AnswerTools(read))

    assert text_of(stream.feed("The", None)) == ""  # of a line, it may begin "word.call("
    assert text_of(stream.feed(" answer", None)) == "The answer"
    assert text_of(stream.feed(" is", None)) == " is"


def test_only_one_call_counts_where_they_may_not_be_parallel() -> None:
    assert len(whole_calls(pieces_of(f"{CALL}; {CALL}", single=True))) == 1
    assert len(whole_calls(pieces_of("[f(x=1), g()]", single=True))) == 1


def test_an_answer_that_is_cut_off_before_its_arguments_is_text() -> None:
    pieces = pieces_of('{"name": "f", "para', finish="length")

    assert text_of(pieces) == '{"name": "f", "para'


def test_what_follows_the_token_for_calls_is_read_as_one() -> None:
    tag = ord("#")
    stream = ToolCallStream(
        AnswerTools(lambda _tokens: read_answer("print(1)", tagged=True), call_token=tag)
    )

    assert stream.feed("", tag) == []
    pieces = [*stream.feed("print(1)", ord("p")), *stream.end("stop")]

    assert calls_of(pieces) == [("code_interpreter", {"code": "print(1)"})]
    assert stream.finish_reason("stop") == "tool_calls"
