"""Fields of other servers: mapped to what is here, ignored, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from server_kit import QUESTION, STORY, Running, thread
from test_errors import CHAT, COMPLETIONS, refused

from llamakit.api import Llama
from llamakit.serve.api_errors import ApiError
from llamakit.serve.client_fields import IGNORED, NOT_OFFERED, NOT_OFFERED_ANYWHERE
from llamakit.serve.message_schemas import MESSAGE_IGNORED
from llamakit.serve.request_schemas import CHAT as CHAT_SCHEMA
from llamakit.serve.request_schemas import COMPLETION as COMPLETION_SCHEMA
from llamakit.serve.responses_schema import RESPONSES
from llamakit.serve.sampling_fields import ALIASES, PROCESSOR_FIELDS, with_standard_names
from llamakit.serve.schema_validation import Unknown, check

SHORT: dict[str, Any] = {"messages": QUESTION, "max_tokens": 3, "temperature": 0}
DRAWN = {"prompt": STORY, "max_tokens": 24, "temperature": 1.5, "top_p": 1, "seed": 7}
REFUSED = {**NOT_OFFERED_ANYWHERE, **NOT_OFFERED}


def text(server: Running, body: dict[str, Any], path: str = COMPLETIONS) -> str:
    """Return the first answer."""
    response = server.post(path, body)
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    return str(choice["text"] if "text" in choice else choice["message"]["content"])


def test_what_cannot_change_an_answer_is_ignored_and_named_in_the_log(llama: Llama) -> None:
    body = {**SHORT, **dict.fromkeys(IGNORED, "any")}
    message = {**dict.fromkeys(MESSAGE_IGNORED, "any"), **QUESTION[0]}

    assert set(check(body, CHAT_SCHEMA)) == set(IGNORED)
    assert len(check({**SHORT, "messages": [message]}, CHAT_SCHEMA)) == len(MESSAGE_IGNORED)
    with thread(llama) as running:
        assert text(running, body, CHAT) == text(running, SHORT, CHAT)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_by_name(name: str) -> None:
    schema = CHAT_SCHEMA
    harmless = REFUSED[name]["enum"]

    with pytest.raises(ApiError, match=f"{name} is not offered: ") as raised:
        check({**SHORT, name: "something else"}, schema)
    assert raised.value.param == name
    for value in (*harmless, None):
        assert check({**SHORT, name: value}, schema) == []
    assert check({**SHORT, name: "something else"}, schema, unknown=Unknown.WARN) == [name]


def test_an_ignored_field_is_not_taken_for_that_of_another_endpoint() -> None:
    tool = {"type": "function", "name": "f", "function": "any"}
    body = {"input": "a", "tools": [tool], "n": 5, "functions": 3, "response_format": "any"}

    ignored = check(body, RESPONSES, unknown=Unknown.WARN)

    assert ignored == ["tools[0].function", "n", "functions", "response_format"]
    assert body == {"input": "a", "tools": [{"type": "function", "name": "f"}]}


def test_no_field_is_in_two_tables() -> None:
    rows = [*IGNORED, *NOT_OFFERED_ANYWHERE, *PROCESSOR_FIELDS, *ALIASES]

    assert len(rows) == len(set(rows))
    assert set(rows) <= CHAT_SCHEMA["properties"].keys()
    assert set(rows) <= COMPLETION_SCHEMA["properties"].keys()


@pytest.mark.parametrize(("unknown", "status"), [("refuse", 400), ("warn", 200), ("ignore", 200)])
def test_unknown_fields_are_as_the_operator_says(
    llama: Llama, unknown: str, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    body = {**SHORT, "mystery": 1, "use_beam_search": True, "user": "me"}
    with thread(llama, unknown_fields=Unknown(unknown)) as running:
        response = running.post(CHAT, body)

    assert response.status_code == status
    if status == 400:
        assert response.json()["error"]["param"] == "mystery"
    log = capfd.readouterr().err
    assert ("mystery,use_beam_search,user" in log) == (unknown == "warn")


def test_each_endpoint_names_the_fields_that_it_ignores_in_the_log(
    llama: Llama, capfd: pytest.CaptureFixture[str]
) -> None:
    bodies = {
        "/v1/embeddings": {"input": STORY},
        "/tokenize": {"text": STORY},
        "/detokenize": {"tokens": [1]},
    }

    with thread(llama, unknown_fields=Unknown.WARN) as running:
        for path, body in bodies.items():
            assert running.post(path, {**body, "mystery": 1}).status_code == 200

    log = capfd.readouterr().err
    assert log.count("ignored=mystery") == len(bodies)


@pytest.mark.parametrize(
    ("fields", "processors"),
    [
        ({"top_k": 3}, ["top-k:k=3"]),
        ({"min_p": 0.2}, ["min-p:p=0.2"]),
        ({"typical_p": 0.3}, ["typical:mass=0.3"]),
        ({"repetition_penalty": 1.4}, ["repetition-penalty:penalty=1.4"]),
        ({"repeat_penalty": 1.4, "repeat_last_n": 4}, ["repetition-penalty:penalty=1.4,last=4"]),
        ({"min_tokens": 20}, ["min-length:length=20"]),
        ({"no_repeat_ngram_size": 1}, ["no-repeat-ngram:n=1"]),
        ({"top_n_sigma": 0.5}, ["top-n-sigma:n=0.5"]),
        (
            {"dry_multiplier": 3, "dry_allowed_length": 1, "dry_penalty_last_n": -1},
            ["dry:multiplier=3,allowed-length=1"],
        ),
        ({"frequency_penalty": 1, "top_k": 4}, ["frequency-penalty:penalty=1", "top-k:k=4"]),
    ],
    ids=str,
)
def test_a_field_is_the_processor_that_it_stands_for(
    server: Running, fields: dict[str, Any], processors: list[str]
) -> None:
    assert text(server, {**DRAWN, **fields}) == text(server, {**DRAWN, "processors": processors})


@pytest.mark.parametrize(
    "fields",
    [
        {"top_k": -1, "min_p": 0, "typical_p": 1, "repetition_penalty": 1.0, "top_n_sigma": -1},
        {"top_k": 0, "dry_multiplier": 0, "xtc_probability": 0, "mirostat": 0, "min_tokens": 0},
        {"repetition_penalty": 2, "repeat_last_n": 0, "dynatemp_range": 0, "ignore_eos": False},
        {"xtc_probability": 1, "xtc_threshold": 0.6, "do_sample": True, "stop_token_ids": []},
        {"best_of": 1, "max_new_tokens": 24, "random_seed": 7, "grammar": None},
    ],
    ids=str,
)
def test_a_field_that_is_off_changes_nothing(server: Running, fields: dict[str, Any]) -> None:
    assert text(server, {**DRAWN, **fields}) == text(server, DRAWN)


def test_mirostat_is_the_sampler_and_a_varying_temperature_a_processor(server: Running) -> None:
    plain = {name: DRAWN[name] for name in ("prompt", "max_tokens", "temperature", "seed")}
    sampler = {"sampler": "mirostat", "sampler_options": {"tau": 3, "eta": 0.2}}
    varying = {"dynatemp_range": 0.5, "dynatemp_exponent": 2}
    processor = "dynamic-temperature:low=1.0,high=2.0,exponent=2"

    assert text(
        server, {**DRAWN, "top_k": 2, "mirostat": 2, "mirostat_tau": 3, "mirostat_eta": 0.2}
    ) == text(server, {**plain, **sampler})
    assert text(server, {**DRAWN, **varying}) == text(
        server, {**DRAWN, "temperature": 1, "processors": [processor]}
    )


def test_an_answer_ends_where_the_limits_of_others_say(server: Running) -> None:
    whole = server.post(CHAT, {**SHORT, "max_tokens": -1}).json()
    longer = server.post(CHAT, {**SHORT, "max_tokens": 90, "ignore_eos": True}).json()
    tokens = server.post("/tokenize", {"text": whole["choices"][0]["message"]["content"]}).json()
    body = {**SHORT, "max_tokens": -1, "stop_token_ids": [tokens["tokens"][4]]}
    stopped = server.post(CHAT, body).json()

    assert whole["choices"][0]["finish_reason"] == "stop"
    assert longer["usage"]["completion_tokens"] == 90
    assert stopped["usage"]["completion_tokens"] < whole["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"guided_choice": ["a (b)", "a (b)"]}, "a (b)"),
        ({"guided_regex": "x{3}"}, "xxx"),
        ({"guided_json": '{"enum": [7]}'}, "7"),
        ({"guided_grammar": 'root ::= "ab"'}, "ab"),
        ({"grammar": 'start: "xy"'}, "xy"),
        ({"grammar": {"type": "regex", "value": "z"}}, "z"),
        ({"json_schema": {"enum": [3]}}, "3"),
        ({"structured_outputs": {"choice": ["q"]}}, "q"),
        ({"structured_outputs": {"json": {"enum": [5]}}}, "5"),
        ({"response_format": {"type": "json_object", "schema": {"enum": [8]}}}, "8"),
        ({"response_format": {"type": "json_schema", "schema": {"enum": [9]}}}, "9"),
        ({"response_format": {"type": "regex", "pattern": "y"}}, "y"),
        ({"regex": "w"}, "w"),
        ({"ebnf": 'root ::= "v"'}, "v"),
        ({"format": {"enum": [4]}}, "4"),
    ],
    ids=str,
)
def test_structured_output_may_be_asked_for_in_many_ways(
    server: Running, field: dict[str, Any], expected: str
) -> None:
    assert text(server, {**SHORT, "max_tokens": 20, **field}, CHAT) == expected


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"guided_regex": "a", "json_schema": {}}, "json_schema", "in 2 ways: give one"),
        ({"n_predict": 4}, "n_predict", "mean the same and differ"),
        ({"mirostat": 2, "sampler": "greedy"}, "mirostat", "the request has another one"),
        ({"mirostat": 1}, "mirostat", "mirostat is 1; it has to be one of 0, 2"),
        ({"stop_token_ids": [99999]}, "stop_token_ids", "the last one is 1599"),
        ({"best_of": 2}, "best_of", "they have to be equal"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens is 0; it has to be 1 or more"),
        ({"topk": 3}, "topk", "did you mean 'top_k'?"),
        ({"mystery": 3}, "mystery", "/openapi.json describes them"),
        ({"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs", "has no variables"),
        ({"add_generation_prompt": False}, "add_generation_prompt", "needs continue_final"),
        ({"continue_final_message": True}, "continue_final_message", "last message of the"),
        ({"dry_multiplier": 1, "dry_sequence_breakers": ["|"]}, "dry_sequence_breakers", "|"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(
    server: Running, fields: dict[str, Any], param: str, words: str
) -> None:
    error = refused(server.post(CHAT, {**SHORT, **fields}), 400)

    assert words in error["message"]
    assert error["param"] == param


def test_biases_may_be_pairs_and_forbid_a_token(server: Running) -> None:
    pairs = [[13, 1], [40, False]]

    assert text(server, {**DRAWN, "logit_bias": pairs}) == text(
        server, {**DRAWN, "processors": ["logit-bias:bias=13:1,40:-inf"]}
    )
    error = refused(server.post(CHAT, {**SHORT, "logit_bias": [[1]]}), 400)
    assert error["param"] == "logit_bias"


def test_a_seed_of_minus_one_is_a_new_one_each_time() -> None:
    assert "seed" not in with_standard_names({"seed": -1})


def test_unknown_fields_that_are_null_ask_for_nothing(server: Running) -> None:
    message = {**QUESTION[0], "id": "x", "name": "me", "reasoning_content": None, "novel": None}

    assert text(server, {**SHORT, "novel": None, "messages": [message]}, CHAT)


def test_other_names_are_replaced() -> None:
    assert with_standard_names({"n_predict": 3, "typical": 0.5, "do_sample": False}) == {
        "max_tokens": 3,
        "typical_p": 0.5,
        "temperature": 0,
        "do_sample": False,
    }


# Messages -----------------------------------------------------------------------------------------


def tokens_of(server: Running, *messages: dict[str, Any]) -> list[int]:
    """Return the prompt of a dialog."""
    response = server.post("/tokenize", {"messages": messages})
    assert response.status_code == 200, response.text
    found: list[int] = response.json()["tokens"]
    return found


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


def test_parts_of_a_text_are_apart(server: Running) -> None:
    def parts(*texts: str) -> list[dict[str, Any]]:
        mark = {"cache_control": {"type": "ephemeral"}}
        return [{"type": "text", "text": text, **mark} for text in texts]

    assert tokens_of(server, user(parts("Good", "morning"))) == tokens_of(
        server, user("Good\nmorning")
    )
    assert tokens_of(server, user(parts("Good ", "morning"))) == tokens_of(
        server, user("Good morning")
    )


def test_neighbors_of_one_role_are_merged_where_the_format_wants_turns(server: Running) -> None:
    answer = {"role": "assistant", "content": "C"}

    assert tokens_of(server, system("A"), system("B"), user("C")) == tokens_of(
        server, system("A\n\nB"), user("C")
    )
    assert tokens_of(server, user("A"), user("B")) == tokens_of(server, user("A\n\nB"))
    assert tokens_of(server, system("A"), user("B"), answer, system("D"), user("E")) == tokens_of(
        server, system("A\n\nD"), user("B"), answer, user("E")
    )


def test_an_answer_continues_the_last_message(server: Running) -> None:
    begun = {"role": "assistant", "content": "The shards"}
    wanted = {"continue_final_message": True, "add_generation_prompt": False}
    body = {**SHORT, "max_tokens": 8}

    found = text(server, {**body, "messages": [*QUESTION, begun], **wanted}, CHAT)

    assert found.startswith(" ")
    marked = [*QUESTION, {**begun, "prefix": True}]
    assert text(server, {**body, "messages": marked}, CHAT) == found


def test_variables_reach_a_chat_template(server: Running, llama: Llama) -> None:
    told = {"enable_thinking": False, "reasoning_effort": "low"}

    assert text(server, {**SHORT, "chat_template_kwargs": told}, CHAT) == text(server, SHORT, CHAT)


def test_each_event_may_have_the_usage_so_far(server: Running) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}

    lines = server.post(CHAT, {**SHORT, "stream": True, "stream_options": options}).text

    assert '"completion_tokens": 1,' in lines
    assert '"usage": null' not in lines
