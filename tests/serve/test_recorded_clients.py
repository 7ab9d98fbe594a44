"""The requests of real clients, as ``make clients RECORD=1`` has recorded them, asked again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response
from server_kit import Running, demo_folder, thread

from llamakit.api import Llama

RECORDED = sorted((Path(__file__).parents[1] / "data" / "clients").glob("*.json"))
CLIENTS = {
    *("ag2", "agno", "ai", "autogen", "dspy", "haystack", "instructor", "langchain", "litellm"),
    *("llama", "llm", "lm", "magentic", "mirascope", "openai", "outlines", "pydantic"),
    "smolagents",
}


@pytest.fixture(scope="module")
def wide() -> Iterator[Running]:
    """A server with room for what agents describe, whose answers are cut off early."""
    model = Llama.open(demo_folder(), max_seq_len=1024, max_batch_size=4, dtype="float32")
    with (
        model as llama,
        thread(
            llama, model_name="llama-demo", new_tokens=64, sampling={"temperature": 0}
        ) as running,
    ):
        yield running


def test_every_client_has_a_recording() -> None:
    assert {path.stem.partition("_")[0] for path in RECORDED} == CLIENTS


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_what_clients_send_is_answered_in_the_shape_that_they_read(
    wide: Running, path: Path
) -> None:
    for recorded in json.loads(path.read_text(encoding="utf-8")):
        body = recorded["body"]

        answer = wide.post(recorded["path"], body)

        assert answer.status_code == 200, answer.text
        if recorded["path"] == "/tokenize":
            assert len(answer.json()["tokens"]) == answer.json()["count"] > 0
        elif recorded["path"] == "/v1/completions":
            check_scores(body, answer.text)
        elif recorded["path"] == "/v1/responses":
            check_response(body, answer.text)
        elif body.get("stream"):
            check_chunks(body, answer.text)
        else:
            message = ChatCompletion.model_validate(answer.json()).choices[0].message
            assert is_forced(body) == bool(message.tool_calls)


def check_scores(body: dict[str, Any], text: str) -> None:
    """Check that each token has a score, and one more that lm-eval takes off."""
    choices = json.loads(text)["choices"]  # openai's type has no null for the first token
    for prompt, choice in zip(body["prompt"], choices, strict=True):
        logprobs = choice["logprobs"]
        assert len(logprobs["token_logprobs"]) == len(prompt) + 1
        assert None not in logprobs["token_logprobs"][1:]
        assert all(logprobs["top_logprobs"][1:])


def is_forced(body: dict[str, Any]) -> bool:
    return body.get("tool_choice", "auto") not in ("auto", "none")


def check_chunks(body: dict[str, Any], text: str) -> None:
    """Check a stream of a chat."""
    *blocks, done = text.removesuffix("\n\n").split("\n\n")
    chunks = [
        ChatCompletionChunk.model_validate_json(block.removeprefix("data: ")) for block in blocks
    ]
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert done == "data: [DONE]"
    assert is_forced(body) == any(delta.tool_calls for delta in deltas)
    has_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    assert (chunks[-1].usage is not None) == has_usage


def check_response(body: dict[str, Any], text: str) -> None:
    """Check a response, whole or as events."""
    if body.get("stream"):
        last = text.removesuffix("\n\n").split("\n\n")[-1]
        text = json.dumps(json.loads(last.partition("\ndata: ")[2])["response"])
    output = Response.model_validate_json(text).output
    assert is_forced(body) == any(item.type == "function_call" for item in output)
