"""What clients send beside what they mean: nulls, defaults, their own answers again."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai.types import completion_create_params as completion_params
from openai.types.chat import completion_create_params as chat_params
from server_kit import QUESTION, STORY, Running, held, thread
from test_errors import CHAT, COMPLETIONS, refused

from llamakit.api import Llama

SHORT = {"messages": QUESTION, "max_tokens": 3, "temperature": 0}
SHORT_TEXT = {"prompt": STORY, "max_tokens": 3, "temperature": 0}


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        (CHAT, SHORT, chat_params.CompletionCreateParamsBase.__annotations__),
        (COMPLETIONS, SHORT_TEXT, completion_params.CompletionCreateParamsBase.__annotations__),
    ],
)
def test_every_field_of_the_official_client_may_be_null(
    server: Running, path: str, body: dict[str, Any], fields: dict[str, Any]
) -> None:
    plain = server.post(path, body)
    nulls = server.post(path, {**dict.fromkeys(fields), **body})

    assert nulls.status_code == 200, nulls.text
    assert nulls.json()["choices"] == plain.json()["choices"]


@pytest.mark.parametrize(
    "field",
    [
        {"tools": []},
        {"tool_choice": "none"},
        {"tool_choice": "auto"},
        {"functions": [], "function_call": "none"},
        {"modalities": ["text"]},
        {"verbosity": "medium", "reasoning_effort": "low"},
        {"prediction": {"type": "content", "content": "Run"}},
        {"stop": []},
        {"stop": ""},
        {"stop": ["", "never said"]},
        {"top_logprobs": 0, "logprobs": False},
        {"n": 1.0, "max_tokens": 3.0, "seed": -1},
        {"stream_options": {"include_usage": True}},
        {"logit_bias": {}},
        {"temperature": 1e-9},
        {"response_format": {"type": "text", "json_schema": None}},
    ],
    ids=str,
)
def test_what_asks_for_nothing_changes_nothing(server: Running, field: dict[str, Any]) -> None:
    expected = server.post(CHAT, SHORT).json()["choices"]

    found = server.post(CHAT, {**SHORT, **field})

    assert found.status_code == 200, found.text
    assert found.json()["choices"] == expected


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "a"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
    ],
    ids=str,
)
def test_what_there_is_not_is_refused_in_words(
    server: Running, field: dict[str, Any], param: str
) -> None:
    error = refused(server.post(CHAT, {**SHORT, **field}), 400)

    assert "is not offered: " in error["message"]
    assert error["param"] == param


def test_an_answer_of_the_clients_may_be_sent_again_as_it_came(server: Running) -> None:
    client = server.openai()
    first = client.chat.completions.create(model="llama-demo", **SHORT)  # type: ignore[call-overload]
    message = first.choices[0].message

    for again in (message, message.model_dump()):
        answer = client.chat.completions.create(
            model="llama-demo",
            messages=[*QUESTION, again, {"role": "user", "content": "And then?"}],  # type: ignore[list-item]
            max_tokens=3,
        )
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 3


def test_numbers_that_are_written_as_2_0_are_whole_numbers(server: Running) -> None:
    tokens = server.post("/tokenize", {"text": STORY}).json()["tokens"]
    body = {"max_tokens": 4, "temperature": 0, "logprobs": 2, "n": 1}
    floats = {name: float(value) for name, value in body.items()}

    whole = server.post(COMPLETIONS, {"prompt": tokens, **body}).json()
    found = server.post(COMPLETIONS, {"prompt": list(map(float, tokens)), **floats}).json()

    assert found["choices"][0]["text"] == whole["choices"][0]["text"]
    assert found["usage"] == whole["usage"]


def test_nulls_are_defaults_for_tokenize_as_well(server: Running) -> None:
    plain = server.post("/tokenize", {"text": STORY}).json()
    nulls = {"text": STORY, "messages": None, "bos": None, "prompt_format": None}

    assert server.post("/tokenize", nulls).json() == plain


def test_several_streamed_answers_are_distinguished_by_their_index(server: Running) -> None:
    body = {"messages": QUESTION, "max_tokens": 12, "temperature": 1.5, "seed": 3, "n": 3}
    whole = server.post(CHAT, body).json()["choices"]

    texts = ["", "", ""]
    finishes: list[tuple[int, str]] = []
    text = server.post(CHAT, {**body, "stream": True}).text
    for event in text.split("\n\n"):
        if not event or event == "data: [DONE]":
            continue
        (choice,) = json.loads(event.removeprefix("data: "))["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
        if choice["finish_reason"]:
            finishes.append((choice["index"], choice["finish_reason"]))

    assert texts == [choice["message"]["content"] for choice in whole]
    assert sorted(finishes) == [(it["index"], it["finish_reason"]) for it in whole]


# Schemas ------------------------------------------------------------------------------------------


def json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}


@pytest.mark.parametrize(
    ("response_format", "words"),
    [
        ({"type": "json_schema"}, "response_format lacks 'json_schema'"),
        ({"type": "xml"}, "one of 'text', 'json_object', 'json_schema'"),
        (
            json_schema({"type": "wrong"}),
            "the JSON schema cannot be used: #/type: Invalid type: wrong",
        ),
        (json_schema({"$ref": "http://elsewhere.example"}), "does not fetch resources"),
        (json_schema({"$ref": "file:///etc/passwd"}), "does not fetch resources"),
        (json_schema({"enum": ["a" * 70_000]}), "characters; expected 65536 or less"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_the_reason(
    server: Running, response_format: dict[str, Any], words: str
) -> None:
    error = refused(server.post(CHAT, {**SHORT, "response_format": response_format}), 400)

    assert words in error["message"]
    assert error["param"] == "response_format"
    assert len(error["message"]) < 600


def test_a_processor_that_leaves_few_tokens_keeps_those_of_the_schema(
    server: Running,
) -> None:
    answer = server.post(
        CHAT,
        {
            "messages": QUESTION,
            "max_tokens": 20,
            "sampler": "draw",
            "processors": ["top-k:k=1"],
            "response_format": json_schema({"enum": [12, 345]}),
        },
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] in ("12", "345")


def test_who_has_nothing_built_is_not_held_up_by_what_takes_long_to_build(llama: Llama) -> None:
    body = {"prompt": STORY, "max_tokens": 2}
    with held(llama, "build") as slow, thread(llama) as running, ThreadPoolExecutor(3) as threads:
        asked = {**body, "processors": [slow.name]}
        others = [threads.submit(running.post, COMPLETIONS, asked) for _ in range(3)]
        slow.wait()

        meanwhile = running.post(COMPLETIONS, body)
        done = [it.done() for it in others]
        slow.let_go()
        codes = [it.result().status_code for it in others]

    assert meanwhile.status_code == 200
    assert done == [False] * 3
    assert codes == [200] * 3
