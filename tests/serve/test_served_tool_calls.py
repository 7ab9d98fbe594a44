"""Tools in requests, and tool calls in answers, as OpenAI's client sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from server_kit import QUESTION, Running, thread

from llamakit.api import Llama
from llamakit.llama.tool_call_reader import read_answer
from llamakit.plugin_manager.registry import Entry, Source
from llamakit.protocols import ParsedAnswer

TOOLS: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
CALL = r'\{"name": "f", "parameters": \{"n": [0-9]\}\}'
TEXT = "[a-z]{3}"


class _Told:
    """Writes a dialog as lines, and the names of the tools before it."""

    def __init__(self, tokenizer: Any, names: Sequence[str] = ()) -> None:
        self._tokenizer, self._names = tokenizer, names
        self.has_tools = bool(names)
        self.stop_tokens = (tokenizer.eos_id,)

    def with_tools(self, tools: Any) -> _Told:
        return _Told(self._tokenizer, [tool["function"]["name"] for tool in tools])

    def encode(self, dialog: Any) -> list[int]:
        lines = [*self._names, *(f"{it['role']} {it['content']}" for it in dialog)]
        return list(self._tokenizer.encode("\n".join(lines), bos=True))

    def read_answer(self, tokens: Sequence[int]) -> ParsedAnswer:
        return read_answer(self._tokenizer.decode(tokens))


@pytest.fixture(scope="module")
def server_with_tools(llama: Llama) -> Iterator[Running]:
    def told(tokenizer: Any) -> _Told:
        return _Told(tokenizer)

    llama.toolkit.prompt_formats.add(
        Entry("prompt format", "told", told, "", Source("told", "tests", "1", builtin=True))
    )
    with thread(llama, prompt_format="told") as running:
        yield running


def asked(server: Running, pattern: str, **settings: Any) -> Any:
    body = {"processors": [{"name": "regex", "options": {"pattern": pattern}}], "seed": 1}
    settings = {"messages": QUESTION, "tools": TOOLS, **settings}
    return server.openai().chat.completions.create(model="demo", extra_body=body, **settings)


def test_a_call_is_returned_as_openai_s_tool_calls(server_with_tools: Running) -> None:
    (choice,) = asked(server_with_tools, CALL).choices

    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert call.function.name == "f"
    assert list(json.loads(call.function.arguments)) == ["n"]


def test_a_stream_brings_a_call_part_by_part(server_with_tools: Running) -> None:
    events = list(asked(server_with_tools, CALL, stream=True))

    deltas = [event.choices[0].delta for event in events]
    first, *parts = [call for delta in deltas for call in delta.tool_calls or ()]
    assert (first.index, first.type, first.function.name) == (0, "function", "f")
    assert first.id.startswith("call_")
    assert len(parts) > 1
    assert not any(part.id or part.function.name for part in parts)
    assert list(json.loads("".join(part.function.arguments for part in parts))) == ["n"]
    assert not any(delta.content for delta in deltas)
    assert events[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_a_call_stays_text(server_with_tools: Running, stream: bool) -> None:
    answer = asked(server_with_tools, TEXT, stream=stream)

    if stream:
        events = list(answer)
        text = "".join(event.choices[0].delta.content or "" for event in events)
        finish = events[-1].choices[0].finish_reason
    else:
        text, finish = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert len(text.strip()) == 3
    assert finish == "stop"


def test_without_tools_json_is_text(server_with_tools: Running) -> None:
    for settings in ({"tools": []}, {"tool_choice": "none"}):
        (choice,) = asked(server_with_tools, CALL, **settings).choices

        assert choice.message.tool_calls is None
        assert json.loads(choice.message.content)["name"] == "f"


def test_a_call_that_is_cut_off_stays_text(server_with_tools: Running) -> None:
    (choice,) = asked(server_with_tools, CALL, max_tokens=2).choices

    assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)


def test_calls_and_their_answers_go_back_into_the_dialog(server_with_tools: Running) -> None:
    (choice,) = asked(server_with_tools, CALL).choices
    call = choice.message.tool_calls[0].model_dump()
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "21"},
    ]

    (answer,) = asked(server_with_tools, TEXT, messages=messages).choices

    assert answer.finish_reason == "stop"


def test_a_message_without_content_is_refused(server: Running) -> None:
    answer = server.post("/v1/chat/completions", {"messages": [{"role": "user"}]})

    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "messages[0] lacks 'content'"
