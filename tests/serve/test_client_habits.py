"""What clients of OpenAI's API rely on beside the answers: IDs, slashes, preflights, batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from server_kit import HTTP, QUESTION, STORY, Running, say, thread

from llamakit.api import Llama
from llamakit.serve.server_settings import Limits

ORIGIN = "https://page.example"


@pytest.fixture(scope="module")
def logged() -> list[str]:
    """The lines of the request log."""
    return []


@pytest.fixture(scope="module")
def running(llama: Llama, logged: list[str]) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llamakit.serve.middleware.write", logged.append)
        limits = Limits(body=10_000, arrival=1.0)
        with thread(llama, origins=(ORIGIN,), json_log=True, limits=limits) as running:
            yield running


def test_every_response_has_a_request_id_that_the_log_has_too(
    running: Running, logged: list[str]
) -> None:
    responses = [
        running.get("/health"),
        running.get("/nothing"),
        running.get("/"),
        running.post("/v1/completions", {"prompt": 5}),
        running.post("/v1/completions", {"prompt": STORY, "max_tokens": 1, "stream": True}),
        running.post("/v1/completions", {"prompt": "a" * 20_000}),
        HTTP.put(f"{running.url}/v1/models"),
        running.get("/health", headers={"Host": "evil.example"}),
    ]
    invalid = say(running.address, b"nonsense\r\n\r\n")

    found = [response.headers["x-request-id"] for response in responses]
    assert len(set(found)) == len(responses)
    assert {json.loads(line)["request_id"] for line in logged} >= set(found)
    assert b"x-request-id: req_" in invalid


@pytest.mark.parametrize(
    ("given", "is_repeated"),
    [
        ("my-id_1.2:3", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("", False),
        ('a" b', False),
        ("<script>", False),
        ("\xe9", False),
    ],
)
def test_a_clients_own_request_id_is_repeated_if_it_is_safe(
    running: Running, given: str, is_repeated: bool
) -> None:
    response = running.get("/health", headers={"X-Request-ID": given.encode("latin-1")})

    assert (response.headers["x-request-id"] == given) == is_repeated


def test_the_official_client_shows_the_request_id(running: Running) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        running.openai().completions.create(model="demo", prompt=STORY, max_tokens=-5)

    assert str(caught.value.request_id).startswith("req_")


def test_too_long_a_prompt_is_told_in_the_words_that_clients_look_for(running: Running) -> None:
    long: list[Any] = [{"role": "user", "content": "How do I reshard? " * 200}]

    with pytest.raises(openai.BadRequestError) as caught:
        running.openai().chat.completions.create(model="demo", messages=long)

    assert caught.value.code == "context_length_exceeded"
    assert caught.value.type == "invalid_request_error"
    assert "This model's maximum context length is 256 tokens. However, you requested " in str(
        caught.value
    )


@pytest.mark.parametrize("path", ["/v1/models/", "/v1/models/demo/", "/health/", "/v1/models/demo"])
def test_a_slash_at_the_end_is_answered_and_not_redirected(running: Running, path: str) -> None:
    assert running.get(path).status_code == 200

    posted = running.post("/v1/completions/", {"prompt": STORY, "max_tokens": 1})
    assert posted.status_code == 200
    assert running.get("/nothing/").status_code == 404
    assert running.get("//evil.example/").status_code == 404


def test_a_preflight_with_the_headers_of_openais_clients_passes_for_an_allowed_origin(
    running: Running,
) -> None:
    asked = "authorization,content-type,x-stainless-arch,x-stainless-retry-count,x-request-id"

    def preflight(origin: str) -> Any:
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": asked,
        }
        return HTTP.options(f"{running.url}/v1/chat/completions", headers=headers)

    allowed, foreign = preflight(ORIGIN), preflight("https://evil.example")
    answered = running.get("/v1/models", headers={"Origin": ORIGIN})

    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert set(asked.split(",")) <= set(
        allowed.headers["access-control-allow-headers"].replace(" ", "").lower().split(",")
    )
    assert "x-request-id" in answered.headers["access-control-expose-headers"]
    assert foreign.status_code == 400
    assert "access-control-allow-origin" not in foreign.headers


def test_batches_of_langchain_and_lm_eval_are_within_the_defaults(llama: Llama) -> None:
    with thread(llama) as running:
        twenty = running.post("/v1/completions", {"prompt": [STORY] * 20, "max_tokens": 1})
        many = running.post("/v1/completions", {"prompt": [STORY] * 128, "max_tokens": 1})

    assert len(twenty.json()["choices"]) == 20
    assert len(many.json()["choices"]) == 128


def test_the_error_of_a_pattern_or_a_schema_is_whole(running: Running) -> None:
    def message(body: dict[str, Any]) -> str:
        response = running.post("/v1/chat/completions", {"messages": QUESTION, **body})
        assert response.status_code == 400
        return str(response.json()["error"]["message"])

    pattern = "(" + "a|" * 700 + "b"
    schema = {"type": "object", "properties": {"name" * 150: {"type": "strange"}}}
    wrong_pattern = message({"processors": [{"name": "regex", "options": {"pattern": pattern}}]})
    wrong_schema = message(
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}
    )

    assert wrong_pattern.endswith("unclosed group, at character 1: '(a|a|a|a|a|a|a|a|a|a'")
    assert wrong_schema.endswith(": Invalid type: strange")
