"""Tool calls in answers, in all the ways that Llama 3 and 4 write them."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamakit.errors import DialogError
from llamakit.llama.tool_call_reader import read_answer
from llamakit.llama.tool_calls import tool_calls_of
from llamakit.plugins.prompt_formats.llama3.tools import call_text
from llamakit.protocols import ParsedAnswer, ToolCall

PARIS = ToolCall("get_weather", {"city": "Paris"})
ROME = ToolCall("get_weather", {"city": "Rome", "days": 3})

WRITTEN = {
    '{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}': [PARIS],
    '{"name": "get_weather", "arguments": {"city": "Paris"}}': [PARIS],
    '{"name": "get_weather", "parameters": "{\\"city\\": \\"Paris\\"}"}': [PARIS],
    '{"type": "function", "function": {"name": "f", "parameters": {}}}': [ToolCall("f", {})],
    '\n{"name": "get_weather",\n "parameters": {"city": "Paris"}}\n': [PARIS],
    '{"name": "f", "parameters": {"text": "two\nlines"}}': [ToolCall("f", {"text": "two\nlines"})],
    '[{"name": "f", "parameters": {}}, {"name": "g", "parameters": {}}]': [
        ToolCall("f", {}),
        ToolCall("g", {}),
    ],
    '{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}': [
        ToolCall("f", {}),
        ToolCall("g", {}),
    ],
    '<function=get_weather>{"city": "Paris"}</function>': [PARIS],
    '<function=get_weather>{"city": "Paris"}': [PARIS],
    "<function=get_weather>{'city': 'Paris'}</function>": [PARIS],
    '<function=f>{"a": {"b": [1]}}</function>': [ToolCall("f", {"a": {"b": [1]}})],
    '<function=f>{}</function><function=g>{"x": "}"}</function>': [
        ToolCall("f", {}),
        ToolCall("g", {"x": "}"}),
    ],
    "[get_weather(city='Paris'), get_weather(city=\"Rome\", days=3)]": [PARIS, ROME],
    '[get_weather(city="Paris")][get_weather(city="Rome", days=3)]': [PARIS, ROME],
    " [ get_weather ( city = 'Paris' , ) , ] ": [PARIS],
    "[f()]": [ToolCall("f", {})],
    "[my-tool.v2(on=True, off=false, no=None, nothing=null)]": [
        ToolCall("my-tool.v2", {"on": True, "off": False, "no": None, "nothing": None})
    ],
    "[f(n=-1, x=2.5e3, l=[1, 'a', [2]], d={'k': 1, \"m\": [True]}, e={k=\"v\"})]": [
        ToolCall(
            "f",
            {"n": -1, "x": 2500.0, "l": [1, "a", [2]], "d": {"k": 1, "m": [True]}, "e": {"k": "v"}},
        )
    ],
    '[f(a=\'it\\\'s\', b="say "hi", please", c=\'two\nlines\', d="\\u00e9\\n")]': [
        ToolCall("f", {"a": "it's", "b": 'say "hi", please', "c": "two\nlines", "d": "é\n"})
    ],
    'brave_search.call(query="gold "price"")': [
        ToolCall("brave_search", {"query": 'gold "price"'})
    ],
    'wolfram_alpha.call(query="1+1")\n': [ToolCall("wolfram_alpha", {"query": "1+1"})],
}


@pytest.mark.parametrize("before", ["", "<|python_tag|>", "<|python_start|>"])
@pytest.mark.parametrize("after", ["", "<|eom_id|>", "<|eot_id|>", "<|eot|>"])
def test_every_written_form_is_read_with_and_without_tag_and_end(before: str, after: str) -> None:
    read = {text: read_answer(f"{before}{text}{after}") for text in WRITTEN}

    assert read == {text: ParsedAnswer("", calls) for text, calls in WRITTEN.items()}


def test_what_follows_the_tag_and_is_no_call_is_code() -> None:
    code = 'answer = tool.call(query="x")\nprint(answer)\n'

    answers = [read_answer(code, tagged=True), read_answer(f"<|python_tag|>{code}<|eom_id|>")]

    assert answers == [ParsedAnswer("", [ToolCall("code_interpreter", {"code": code})])] * 2


def test_text_around_function_tags_and_built_in_calls_is_kept() -> None:
    tagged = read_answer('Let me see. <function=f>{"a": 1}</function> Wait.')
    searched = read_answer('I search.\nbrave_search.call(query="gold")')

    assert tagged == ParsedAnswer("Let me see.  Wait.", [ToolCall("f", {"a": 1})])
    assert searched == ParsedAnswer("I search.", [ToolCall("brave_search", {"query": "gold"})])


@pytest.mark.parametrize(
    "text",
    [
        *("", "  a text ", "[1, 2]", "[]", "[f]", "[f(1)]", "f(a=1)", "[f(a=1)", "[f(a=b)]"),
        *(
            "[f(a=1)] and more",
            "[f(a=1, a=2)]",
            "[f(a=(1, 2))]",
            "[f(a=open('x'))]",
            "see [f(a=1)]",
        ),
        *('{"a": 1}', '{"type": "function", "name": "f"}', '{"name": "f", "parameters": [1]}'),
        *('{"name": "f", "parameters": {}} and more', '{"name": 1, "parameters": {}}', "{"),
        *('{"name": "f", "parameters": {}} {"a": 1}', "<function=f>[1]</function>", "<function=f>"),
        *('say brave_search.call(query="x") now', "[" * 10_000, '{"a":' * 10_000, "[f(a=" * 5_000),
        *("[f(a=" + "[" * 100 + "]" * 100 + ")]", "[f(n=" + "9" * 5000 + ")]", "[f(a='x)]"),
    ],
)
def test_any_other_string_is_an_answer_as_it_is(text: str) -> None:
    assert read_answer(text) == ParsedAnswer(text)


def test_a_header_before_the_answer_is_no_part_of_it() -> None:
    header = "<|start_header_id|>assistant<|end_header_id|>\n\n"

    assert read_answer(f" {header}Hello<|eot_id|> ") == ParsedAnswer("Hello")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("ab é", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("kmn"), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["city", "n", "opts"]), VALUES),
    st.sampled_from(["json", "function-tag", "python-list"]),
)
def test_what_is_written_into_a_prompt_is_read_back(arguments: dict[str, Any], style: Any) -> None:
    call = ToolCall("get_weather", arguments)

    assert read_answer(call_text(call, style, 1)).tool_calls == [call]


@given(st.text("[]{}()<>=\"'\\,:f1 \nfunctioname|python_tag", max_size=60))
def test_whatever_a_model_writes_no_string_is_an_error(text: str) -> None:
    for tagged in (False, True):
        json.dumps(read_answer(text, tagged=tagged).as_message())


def test_a_long_hostile_answer_is_read_in_a_moment() -> None:
    random_ = random.Random(5)
    pieces = ["[f(a='", '"', "\\", "<function=f>{", "')]", '{"name":', 'x.call(query="', "\n"]
    texts = [piece * 20_000 for piece in pieces] + ["".join(random_.choices(pieces, k=20_000))]

    start = time.process_time()
    for text in texts:
        read_answer(f"[f(a='{text}")
        read_answer(text, tagged=True)

    assert time.process_time() - start < 60  # quadratic ways to read take many minutes


def test_the_message_is_openai_s_and_goes_back_into_a_dialog() -> None:
    message: Any = read_answer("[get_weather(city='Paris')]").as_message()

    (call,) = message["tool_calls"]
    assert call["id"].startswith("call_")
    assert (call["type"], call["function"]["name"]) == ("function", "get_weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    assert tool_calls_of(message, 1) == [PARIS]


@pytest.mark.parametrize(
    "wrong",
    [
        "f",
        {"name": "f"},
        ["f"],
        [{"name": ""}],
        [{"arguments": {}}],
        [{"name": "f", "arguments": "{"}],
        [{"name": "f", "arguments": "[1]"}],
        [{"function": "f"}],
        [{"name": "f", "arguments": 3}],
    ],
)
def test_calls_in_a_dialog_that_are_none_are_refused(wrong: Any) -> None:
    with pytest.raises(DialogError, match="message 2"):
        tool_calls_of({"role": "assistant", "content": "", "tool_calls": wrong}, 2)
