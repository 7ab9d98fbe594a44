"""``/v1/responses`` as OpenAI's client sees it: items, events by their names, and no memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from server_kit import Running, thread
from test_errors import refused

from llamakit.api import Llama

PATH = "/v1/responses"
ASKED: dict[str, Any] = {"input": "How do I verify a checkpoint?", "temperature": 0}
SHORT = {**ASKED, "max_output_tokens": 3}
TOOL = {
    "type": "function",
    "name": "add",
    "parameters": {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]},
}
FORCED = {**ASKED, "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}


def answer(server: Running, **fields: Any) -> dict[str, Any]:
    response = server.post(PATH, {**ASKED, **fields})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def events(server: Running, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events of a stream, having checked their names and numbers."""
    text = server.post(PATH, {**body, "stream": True}).text
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def test_the_answer_is_that_of_a_chat(server: Running) -> None:
    messages = [{"role": "system", "content": "Be short."}]
    messages += [{"role": "user", "content": ASKED["input"]}]
    chat = server.post("/v1/chat/completions", {"messages": messages, "temperature": 0}).json()

    found = answer(server, instructions="Be short.", metadata={"k": "v"})

    ((part,),) = [item["content"] for item in found["output"]]
    assert part["text"] == chat["choices"][0]["message"]["content"]
    assert found["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]
    assert found["usage"]["output_tokens"] == chat["usage"]["completion_tokens"]
    assert (found["object"], found["status"], found["store"]) == ("response", "completed", False)
    assert (found["instructions"], found["metadata"]) == ("Be short.", {"k": "v"})


def test_an_answer_that_is_cut_off_is_incomplete(server: Running) -> None:
    found = answer(server, max_output_tokens=3)

    assert found["status"] == found["output"][0]["status"] == "incomplete"
    assert found["incomplete_details"] == {"reason": "max_output_tokens"}


def test_the_events_of_a_text_come_in_their_order(server: Running) -> None:
    found = events(server, {**ASKED, "max_output_tokens": 60})
    kinds = [event["type"].removeprefix("response.") for event in found]
    deltas = [event["delta"] for event in found if event["type"].endswith("text.delta")]

    assert list(dict.fromkeys(kinds)) == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.done", "content_part.done", "output_item.done"),
        "completed",
    ]
    last = found[-1]["response"]
    assert "".join(deltas) == last["output"][0]["content"][0]["text"]
    assert last["output"][0]["id"] == found[2]["item"]["id"] == found[4]["item_id"]
    assert last["usage"]["output_tokens"] > 0


def test_the_events_of_a_call_come_in_their_order(llama: Llama) -> None:
    with thread(llama) as running:
        found = events(running, FORCED)
        whole = answer(running, **FORCED)
    kinds = [event["type"].removeprefix("response.") for event in found]

    assert list(dict.fromkeys(kinds)) == [
        *("created", "in_progress", "output_item.added", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done", "completed"),
    ]
    (item,) = found[-1]["response"]["output"]
    assert (item["type"], item["name"]) == ("function_call", "add")
    assert found[-3]["arguments"] == item["arguments"] == whole["output"][0]["arguments"]
    assert json.loads(item["arguments"])["a"] in (1, 2)


def test_an_incomplete_stream_ends_with_its_own_event(server: Running) -> None:
    assert events(server, SHORT)[-1]["type"] == "response.incomplete"


def test_items_are_the_messages_of_a_chat(server: Running) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "add", "arguments": '{"a": 1}'}
    items = [
        {"role": "developer", "content": "Be short."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Add"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {**call, "id": "fc_1", "status": "completed"},
        {"type": "function_call_output", "call_id": "c", "output": "2"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Two."}], "id": "m"},
        {"role": "user", "content": "And?"},
    ]
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Add"},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": "c", "content": "2"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "And?"},
    ]
    messages[2]["tool_calls"][0]["function"] = {"name": "add", "arguments": '{"a": 1}'}  # type: ignore[index]
    expected = server.post("/tokenize", {"messages": messages}).json()["count"]

    found = answer(server, input=items, max_output_tokens=1)

    assert found["usage"]["input_tokens"] == expected


def test_text_may_be_held_to_a_schema(server: Running) -> None:
    wanted = {"type": "json_schema", "name": "it", "schema": {"enum": [5]}, "strict": True}

    found = answer(server, text={"format": wanted})

    assert found["output"][0]["content"][0]["text"] == "5"
    assert found["text"] == {"format": wanted}


def test_log_probabilities_come_with_the_text(server: Running) -> None:
    include = ["message.output_text.logprobs", "reasoning.encrypted_content"]
    found = answer(server, include=include, top_logprobs=2, max_output_tokens=2)
    streamed = events(server, {**SHORT, "include": include, "top_logprobs": 2})

    logprobs = found["output"][0]["content"][0]["logprobs"]
    assert [len(it["top_logprobs"]) for it in logprobs] == [2, 2]
    assert any(event.get("logprobs") for event in streamed)


def test_the_client_parses_what_it_asked_for(server: Running) -> None:
    client = server.openai()

    response = client.responses.create(model="llama-demo", input="Hi", max_output_tokens=5)

    assert response.output_text
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + 5


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"store": True}, "store", "this server keeps no responses"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send the whole dialog"),
        ({"conversation": "conv_1"}, "conversation", "this server keeps no responses"),
        ({"background": True}, "background", "when it is generated"),
        ({"prompt": {"id": "p"}}, "prompt", "keeps no prompts"),
        ({"input": None}, "input", "input is null"),
        ({"input": []}, "input", "input has 0 entries"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input", "input[0].type is"),
        ({"input": [{"role": "user"}]}, "input", "input[0] lacks 'content'"),
        ({"input": [{"type": "function_call"}]}, "input", "input[0] lacks 'name'"),
        (
            {"input": [{"role": "assistant", "content": "a"}]},
            "input",
            "an assistant message comes where the llama2 format expects",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools", "tools[0].type is 'web_search'"),
        ({"tools": [{**TOOL, "name": "a b"}]}, "tools", "tools[0].name is 'a b'"),
        ({"tool_choice": "required"}, "tool_choice", "the request has no tools"),
        ({"max_output_tokens": 0}, "max_output_tokens", "1 or more"),
        ({"mystery": 1}, "mystery", "no field 'mystery'"),
    ],
)
def test_what_this_server_does_not_keep_or_know_is_refused(
    server: Running, fields: dict[str, Any], param: str, words: str
) -> None:
    error = refused(server.post(PATH, {**SHORT, **fields}), 400)

    assert words in error["message"]
    assert error["param"] == param


def test_what_asks_for_nothing_is_taken(server: Running) -> None:
    fields = {"store": False, "background": False, "truncation": "auto", "service_tier": "auto"}
    fields |= {"reasoning": {"effort": "low"}, "user": "me", "previous_response_id": None}

    assert (
        answer(server, **SHORT)["output"][0]["content"]
        == (answer(server, **SHORT, **fields)["output"][0]["content"])
    )


def test_a_path_that_is_not_there_names_those_that_are(server: Running) -> None:
    for path in ("/v1/response", "/v1/responses/resp_1"):
        error = refused(server.get(path), 404)

        assert "/v1/responses, " in error["message"]
        assert "/v1/chat/completions" in error["message"]
