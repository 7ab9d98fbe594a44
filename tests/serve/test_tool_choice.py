"""Forced calls, for any model: what is called, with which arguments, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_kit import QUESTION, STORY, Running, demo_folder, thread
from test_errors import CHAT, refused

from llamakit.api import Llama, choose_sampling
from llamakit.plugin_manager.factories import Choice
from llamakit.serve.tool_choice import call_grammar, tool_use

LLAMA_3 = Path(__file__).parents[1] / "data" / "reference-cases-llama3" / "llama31-mp8"


def function(name: str, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    return {"name": name, "description": f"Does {name}.", "parameters": schema}


def tool(name: str, **properties: Any) -> dict[str, Any]:
    return {"type": "function", "function": function(name, **properties)}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


CITY = {"enum": ["Rome", "Oslo"]}
TOOLS = [tool("weather", city=CITY), tool("add", a={"type": "integer", "maximum": 9, "minimum": 0})]
REFERRING = {"$ref": "#/$defs/City"}
ASKED: dict[str, Any] = {"messages": QUESTION, "temperature": 0, "tools": TOOLS}


@pytest.fixture(scope="module")
def wide() -> Iterator[Running]:
    """A server with room for tools, whose prompt format has none."""
    with (
        Llama.open(demo_folder(), max_seq_len=1024, max_batch_size=4, dtype="float32") as llama,
        thread(llama) as running,
    ):
        yield running


def answer(server: Running, **fields: Any) -> dict[str, Any]:
    """Return the first choice of a chat."""
    response = server.post(CHAT, {**ASKED, **fields})
    assert response.status_code == 200, response.text
    choice: dict[str, Any] = response.json()["choices"][0]
    return choice


def calls(choice: dict[str, Any]) -> list[tuple[str, Any]]:
    found = [it["function"] for it in choice["message"]["tool_calls"]]
    return [(it["name"], json.loads(it["arguments"])) for it in found]


@pytest.mark.parametrize("choice", ["required", "any"])
def test_one_of_the_tools_has_to_be_called(wide: Running, choice: str) -> None:
    found = answer(wide, tool_choice=choice)

    assert found["finish_reason"] == "tool_calls"
    assert found["message"]["content"] is None
    assert {name for name, _ in calls(found)} <= {"weather", "add"}


@pytest.mark.parametrize(
    "choice",
    [
        named("add"),
        {"type": "function", "name": "add"},
        {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [named("add")]},
        },
    ],
)
def test_the_tool_that_is_named_is_called(wide: Running, choice: dict[str, Any]) -> None:
    ((name, arguments),) = calls(answer(wide, tool_choice=choice))

    assert name == "add"
    assert arguments["a"] in range(10)


def test_one_of_as_many_tools_as_an_mcp_server_has_is_called(llama: Llama) -> None:
    describing = {"description": "The owner of the repository, a user or an organization. " * 3}
    values = [f"value of property {number}" for number in range(6)]
    properties = {f"property_{number}": describing | {"enum": values} for number in range(10)}
    tools = [tool(f"tool_{number}", **properties) for number in range(100)]
    grammar = call_grammar(tool_use({"tools": tools, "tool_choice": "required"}), None)

    sampling = choose_sampling(
        processors=[Choice("grammar", {"text": grammar})], tokenizer=llama.tokenizer
    )
    prompt = llama.tokenizer.encode(STORY, bos=True)
    chunks = llama.stream([prompt], sampling=sampling, max_new_tokens=60, seeds=[0])

    text = "".join(chunk.text for chunk in chunks)
    assert re.match(r'\{"name": "tool_\d+", "parameters": \{"property_0": "value of', text)


def test_there_is_one_call_where_they_may_not_be_parallel(wide: Running) -> None:
    hot = {"temperature": 3, "seed": 5}

    several = answer(wide, tool_choice="required", max_tokens=200, **hot)
    single = answer(wide, tool_choice="required", parallel_tool_calls=False, **hot)

    assert len(calls(several)) >= len(calls(single)) == 1


def test_arguments_fit_a_schema_with_references(wide: Running) -> None:
    referring = tool("weather", city=REFERRING)
    referring["function"]["parameters"]["$defs"] = {"City": CITY}

    ((_, arguments),) = calls(
        answer(wide, tools=[referring], tool_choice="required", parallel_tool_calls=False)
    )

    assert arguments["city"] in CITY["enum"]


def test_a_stream_of_a_forced_call_says_what_the_whole_answer_says(wide: Running) -> None:
    body = {**ASKED, "tool_choice": named("weather")}
    text = wide.post(CHAT, {**body, "stream": True}).text
    events = [json.loads(it.removeprefix("data: ")) for it in text.split("\n\n")[:-2]]
    choices = [event["choices"][0] for event in events]
    parts = [it for choice in choices for it in choice["delta"].get("tool_calls", ())]

    whole = answer(wide, tool_choice=named("weather"))["message"]["tool_calls"][0]["function"]

    assert parts[0]["function"] == {"name": "weather", "arguments": ""}
    assert "".join(it["function"]["arguments"] for it in parts) == whole["arguments"]
    assert choices[-1]["finish_reason"] == "tool_calls"


def test_the_older_functions_are_answered_as_they_were(wide: Running) -> None:
    older: dict[str, Any] = {"tools": None, "functions": [function("weather", city=CITY)]}
    found = answer(wide, **older, function_call={"name": "weather"})
    message = found["message"]

    assert found["finish_reason"] == "function_call"
    assert json.loads(message["function_call"]["arguments"])["city"] in CITY["enum"]
    result = {"role": "function", "name": "weather", "content": "Sunny."}
    last = answer(wide, **older, messages=[*QUESTION, message, result], max_tokens=4)
    assert last["message"]["content"]


def test_calls_and_results_are_plain_messages_where_the_format_has_none(wide: Running) -> None:
    call = {"name": "add", "arguments": '{"a": 1}'}
    asked = {"role": "assistant", "tool_calls": [{"id": "x", "type": "function", "function": call}]}
    said = {"role": "assistant", "content": '{"name": "add", "parameters": {"a": 1}}'}
    path = "/tokenize"

    written = wide.post(
        path,
        {"messages": [*QUESTION, asked, {"role": "tool", "tool_call_id": "x", "content": "7"}]},
    ).json()
    plain = wide.post(
        path, {"messages": [*QUESTION, said, {"role": "user", "content": "add returned: 7"}]}
    ).json()

    assert written["tokens"] == plain["tokens"]


def test_structured_output_and_tools_leave_the_choice_to_the_model(wide: Running) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "it", "schema": {"enum": ["k"]}}}

    found = answer(wide, response_format=wanted)
    forced = answer(wide, response_format=wanted, tool_choice=named("add"))

    assert found["message"].get("tool_calls") or found["message"]["content"] == '"k"'
    assert calls(forced)[0][0] == "add"


def test_strict_tools_leave_text_free(wide: Running) -> None:
    strict = [{**it, "function": {**it["function"], "strict": True}} for it in TOOLS]

    found = answer(wide, tools=strict)

    assert found["finish_reason"] == "stop"
    assert found["message"]["content"] == answer(wide)["message"]["content"]


def test_a_call_that_is_cut_off_is_returned_as_far_as_it_went(wide: Running) -> None:
    tools = [tool("weather", city={"enum": ["Rome " * 60]})]
    found = answer(wide, tools=tools, tool_choice="required", max_tokens=90)

    assert found["finish_reason"] == "length"
    (call,) = found["message"]["tool_calls"]
    assert call["function"]["arguments"].startswith("{")


def test_llama_3_is_forced_too_and_reads_the_result() -> None:
    with Llama.open(LLAMA_3, dtype="float32", max_seq_len=1024) as llama, thread(llama) as running:
        found = answer(running, tool_choice="required", parallel_tool_calls=False)
        message = found["message"]
        result = {
            "role": "tool",
            "tool_call_id": message["tool_calls"][0]["id"],
            "content": "Sunny.",
        }
        last = answer(running, messages=[*QUESTION, message, result], max_tokens=2)

    assert found["finish_reason"] == "tool_calls"
    assert calls(found)[0][0] in ("weather", "add")
    assert last["finish_reason"] in ("stop", "length")


def parameters(**schema: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", "parameters": schema}}]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tool_choice": "required", "tools": None}, "tool_choice", "the request has no tools"),
        ({"tool_choice": "sometimes"}, "tool_choice", "one of 'none', 'auto', 'required'"),
        ({"tool_choice": named("nobody")}, "tool_choice", "names 'nobody'; the request has"),
        ({"tool_choice": {"type": "function"}}, "tool_choice", "lacks the name of a function"),
        ({"tool_choice": {"type": "custom"}}, "tool_choice", "tool_choice.type is 'custom'"),
        ({"tools": [{"type": "web_search"}]}, "tools", "tools[0].type is 'web_search'"),
        ({"tools": [tool("a b")]}, "tools", "tools[0].function.name is 'a b'"),
        ({"tools": [tool("a"), tool("a")]}, "tools", "tools[1].function.name is 'a', as is"),
        ({"tools": [tool("a")], "functions": [function("b")]}, "functions", "mean the same"),
        (
            {"tools": parameters(type="string")},
            "tools",
            "tools[0].function.parameters.type is 'string'; it has to be 'object'",
        ),
        (
            {"tools": parameters(properties={"x": {"type": "strng"}})},
            "tools",
            "tools[0].function.parameters.properties.x.type is 'strng'",
        ),
        (
            {"tools": parameters(properties={"x": {"items": {"anyOf": {}}}})},
            "tools",
            "properties.x.items.anyOf is an object; it has to be a list",
        ),
        ({"tools": parameters(required="x")}, "tools", "parameters.required is 'x'"),
        (
            {
                "tools": [*TOOLS, tool("bad", x={"$ref": "#/nowhere"})],
                "tool_choice": "required",
            },
            "tools",
            "tools[2].function.parameters: the JSON schema cannot be used",
        ),
        (
            {"tools": None, "functions": [function("f", x=5)]},
            "functions",
            "functions[0].parameters.properties.x is 5",
        ),
    ],
)
def test_tools_that_cannot_be_used_are_refused_by_their_place(
    wide: Running, fields: dict[str, Any], param: str, words: str
) -> None:
    error = refused(wide.post(CHAT, {**ASKED, **fields}), 400)

    assert words in error["message"]
    assert error["param"] == param
