"""What is refused, and in which words: always in OpenAI's shape."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from server_kit import HTTP, QUESTION, Running, head, say

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


FORMATS = {"llama3": " has no token <|start_header_id|>", "infill": " has no piece ▁<PRE>"}
FORMATS |= {"llama-guard": FORMATS["llama3"]}


def refused(response: httpx.Response, status: int) -> dict[str, Any]:
    """Return the error of a response, having checked its shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/v1/responses", "/tokenize"])
def test_another_models_prompt_format_is_refused_without_the_servers_folders(
    server: Running, path: str, name: str
) -> None:
    prompts: dict[str, Any] = {COMPLETIONS: {"prompt": "a"}, "/v1/responses": {"input": "a"}}
    body = {**prompts.get(path, {"messages": QUESTION}), "prompt_format": name}

    error = refused(server.post(path, body), 400)

    assert error["param"] == "prompt_format"
    assert error["message"].startswith(f"tokenizer.model{FORMATS[name]}")


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (COMPLETIONS, {"prompt": "a", "suffix": "b"}, "this model cannot take a suffix: "),
        ("/v1/moderations", {"input": "a"}, "this model is no Llama Guard: "),
    ],
)
def test_what_the_model_cannot_do_is_refused_without_the_servers_folders(
    server: Running, path: str, body: dict[str, Any], words: str
) -> None:
    error = refused(server.post(path, body), 400)

    assert error["message"].startswith(f"{words}tokenizer.model has no ")


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        (COMPLETIONS, {}, "prompt", "the body lacks 'prompt'"),
        (COMPLETIONS, [], None, "the body is a list; it has to be an object"),
        (COMPLETIONS, {"prompt": 5}, "prompt", "prompt is 5; it has to be a string or a list"),
        (COMPLETIONS, {"prompt": ["a", 5]}, "prompt", "prompt"),
        (COMPLETIONS, {"prompt": []}, "prompt", "prompt has 0 entries; expected 1 or more"),
        (COMPLETIONS, {"prompt": [1, 99999]}, "prompt", "the token ID 99999; the last one is 1599"),
        (
            COMPLETIONS,
            {"prompt": [1e300, 1]},
            "prompt",
            "the token ID 1e+300; the last one is 1599",
        ),
        (COMPLETIONS, {"prompt": "a", "promt": 1}, "promt", "did you mean 'prompt'?"),
        (COMPLETIONS, {"prompt": "a", "n": 0}, "n", "n is 0; it has to be 1 to 128"),
        (
            COMPLETIONS,
            {"prompt": ["a"] * 2, "n": 100},
            "n",
            "200 answers; one request may ask for 128",
        ),
        (COMPLETIONS, {"prompt": "a", "n": True}, "n", "n is true; it has to be a whole number"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 0}, "max_tokens", "that needs echo"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 1.5}, "max_tokens", "a whole number"),
        (COMPLETIONS, {"prompt": "a " * 900}, None, "context length is 256"),
        (COMPLETIONS, {"prompt": "a", "temperature": -1}, "temperature", "0 to 100"),
        (COMPLETIONS, {"prompt": "a", "top_p": 2}, "top_p", "top_p is 2; it has to be 0 to 1"),
        (COMPLETIONS, {"prompt": "a", "sampler": "greddy"}, "sampler", "did you mean 'greedy'?"),
        (
            COMPLETIONS,
            {"prompt": "a", "sampler": "mirostat", "sampler_options": {"tau": "high"}},
            "sampler",
            "'high' is not a number",
        ),
        (COMPLETIONS, {"prompt": "a", "sampler_options": {"p": 1}}, "sampler_options", "sampler"),
        (
            COMPLETIONS,
            {"prompt": "a", "sampler": {"name": "top-p"}, "sampler_options": {"p": 1}},
            "sampler_options",
            "has its options in it already",
        ),
        (COMPLETIONS, {"prompt": "a", "sampler": "top-p:p"}, "sampler", "written NAME=VALUE"),
        (COMPLETIONS, {"prompt": "a", "sampler": {"options": {}}}, "sampler", "name"),
        (
            COMPLETIONS,
            {"prompt": "a", "sampler": "greedy", "top_p": 0.5},
            "sampler",
            "top_p belongs to the sampler top-p; sampler greedy chooses otherwise",
        ),
        (COMPLETIONS, {"prompt": "a", "processors": ["top-k:n=1"]}, "processors", "no option 'n'"),
        (
            COMPLETIONS,
            {"prompt": "a", "processors": ["none"]},
            "processors",
            "no processor is called",
        ),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias", "keys are token IDs"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"9999": 1}}, "logit_bias", "no token 9999"),
        (COMPLETIONS, {"prompt": "a", "best_of": 4}, "best_of", "have to be equal"),
        (CHAT, {"messages": []}, "messages", "messages has 0 entries"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages", "messages[0] lacks 'content'"),
        (
            CHAT,
            {"messages": [{"role": "narrator", "content": "a"}]},
            "messages",
            "messages[0].role is 'narrator'; it has to be one of 'system'",
        ),
        (
            CHAT,
            {"messages": [{"role": "assistant", "content": "a"}]},
            "messages",
            "an assistant message comes where the llama2 format expects",
        ),
        (CHAT, {"messages": [{"role": "user", "content": "[INST]"}]}, "messages", "a tag of the"),
        (CHAT, {"messages": QUESTION, "top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        (COMPLETIONS, {"prompt": [1, "a"]}, "prompt", "prompt[0] is 1; it has to be a string"),
        (COMPLETIONS, {"prompt": [1.5]}, "prompt", "prompt[0] is 1.5"),
        (COMPLETIONS, {"promt": "a"}, "promt", "did you mean 'prompt'?"),
        (COMPLETIONS, {"prompt": "a", "temperature": 1e6}, "temperature", "0 to 100"),
        (COMPLETIONS, {"prompt": "a", "seed": 10**30}, "seed", "seed is 1000"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages",
            "messages[0].content[0].type is 'image_url'; it has to be one of 'text'",
        ),
        (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages", "content is null"),
        (CHAT, {"messages": [None]}, "messages", "messages[0] is null"),
        (CHAT, {"messages": QUESTION, "stop": [None]}, "stop", "stop[0] is null"),
        (
            COMPLETIONS,
            {"prompt": ["a"] * 129},
            "prompt",
            "129 answers; one request may ask for 128",
        ),
        (CHAT, {"messages": QUESTION, "prompt_format": "x"}, "prompt_format", "no prompt format"),
        (
            CHAT,
            {"messages": QUESTION, "prompt_format": {"name": "llama2", "options": {"name": "x"}}},
            "prompt_format",
            "no option 'name'",
        ),
        (
            CHAT,
            {"messages": QUESTION, "prompt_format": {"name": "llama2:file=/etc/passwd"}},
            "prompt_format",
            "no prompt format is called",
        ),
        (
            COMPLETIONS,
            {"prompt": "a", "processors": [{"name": "grammar", "options": {"text": "a" * 70_000}}]},
            "processors",
            "has 70000 characters; expected 65536 or less",
        ),
        (
            COMPLETIONS,
            {"prompt": "a", "processors": [{"name": "regex", "options": {"pattern": "(" * 9000}}]},
            "processors",
            "cannot be used",
        ),
        ("/tokenize", {}, None, "one of text, prompt, content, messages"),
        ("/tokenize", {"text": "a", "prompt": "a"}, None, "found text and prompt"),
        (
            "/tokenize",
            {"text": "a", "add_special_tokens": False},
            "add_special_tokens",
            "changes nothing about text: leave it out; text has bos",
        ),
        ("/tokenize", {"content": "a", "bos": True}, "bos", "content has add_special"),
        ("/tokenize", {"messages": QUESTION, "bos": False}, "bos", "about messages"),
        ("/tokenize", {"messages": QUESTION, "parse_special": True}, "parse_special", "about"),
        ("/tokenize", {"prompt": "a", "prompt_format": "llama3"}, "prompt_format", "about prompt"),
        ("/tokenize", {"prompt": "a", "tool_choice": "none"}, "tool_choice", "about"),
        ("/detokenize", {"tokens": [-1]}, "tokens", "tokens[0] is -1"),
    ],
)
def test_an_invalid_request_is_refused_with_the_reason(
    server: Running, path: str, body: Any, param: str | None, words: str
) -> None:
    error = refused(server.post(path, body), 400)

    assert words in error["message"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 600


def test_another_model_is_not_here(server: Running) -> None:
    error = refused(server.post(COMPLETIONS, {"prompt": "a", "model": "gpt-4"}), 404)

    assert "'llama-demo'" in error["message"]
    assert error["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"prompt": NaN}', "NaN is no JSON"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        (b'{"prompt": "\\ud800"}', "surrogate"),
        (b"[" * 200_000, "more than 64 deep"),
        (b"[" * 100 + b"]" * 100, "more than 64 deep"),
        (b'{"prompt": "a", "seed": 1' + b"0" * 5000 + b"}", ""),
        (b'{"prompt": "a", "temperature": 1e999}', "1e999 is too large a number"),
    ],
)
def test_what_is_no_json_is_refused(server: Running, data: bytes, words: str) -> None:
    response = HTTP.post(
        f"{server.url}{COMPLETIONS}", content=data, headers={"Content-Type": "application/json"}
    )

    assert words in refused(response, 400)["message"]


def test_a_body_has_to_say_that_it_is_json(server: Running) -> None:
    body = json.dumps({"prompt": "a"})

    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = HTTP.post(
            f"{server.url}{COMPLETIONS}", content=body, headers={"Content-Type": kind}
        )
        assert "application/json" in refused(response, 415)["message"]


def test_other_paths_and_methods_are_refused(server: Running) -> None:
    assert "openapi.json" in refused(server.get("/v2/nothing"), 404)["message"]
    assert "GET is not allowed" in refused(server.get(COMPLETIONS), 405)["message"]


@pytest.mark.parametrize(
    "path",
    ["/../pyproject.toml", "/..%2f..%2fpyproject.toml", "//etc/passwd", "/page.py", "/app.js%00"],
)
def test_no_path_reaches_the_file_system(server: Running, path: str) -> None:
    answer = say(
        server.address,
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(),
    )

    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        head(COMPLETIONS, Content_Length="5", Transfer_Encoding="chunked", Connection="close")
        + b"5\r\n12345\r\n0\r\n\r\n",
        head(COMPLETIONS, Content_Length="-5"),
    ],
)
def test_what_is_no_http_ends_the_connection(server: Running, data: bytes) -> None:
    answer = say(server.address, data)

    if answer:  # else the connection was reset while more was sent than is read
        first, _, body = answer.partition(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 4")
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert server.get("/health").json() == {"status": "ok"}


def test_a_wrong_chunk_of_a_head_request_is_answered_without_a_body(server: Running) -> None:
    start = b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"

    answer = say(server.address, start + b"no size\r\n")

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\n")


def test_options_that_name_files_are_refused(server: Running) -> None:
    described = server.get("/v1/llamakit/options").json()

    named = [
        option["name"]
        for kind in ("samplers", "processors", "prompt_formats")
        for thing in described[kind]
        for option in thing["options"]
    ]
    assert named
    assert not [name for name in named if name.rpartition("-")[2] in ("file", "path", "folder")]
