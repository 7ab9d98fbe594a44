"""``/v1/moderations`` judges as ``llamakit.api.moderate`` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from server_kit import Running, thread

from llamakit.api import Llama, moderate
from llamakit.serve.api_errors import ApiError
from llamakit.serve.request_parser import RequestParser
from llamakit.serve.server_settings import ServeSettings

CASE = Path(__file__).parents[1] / "data" / "reference-cases-llama3" / "llama3-gqa-mp1"
TEXTS = ["How do I bake bread?", "Hello"]


@pytest.fixture(scope="module")
def guard() -> Iterator[Llama]:
    with Llama.open(CASE, dtype="float32", max_seq_len=2048, max_batch_size=2) as llama:
        yield llama


@pytest.fixture(scope="module")
def running(guard: Llama) -> Iterator[Running]:
    with thread(guard) as running:
        yield running


def test_openais_client_gets_the_verdicts(running: Running, guard: Llama) -> None:
    answer = running.openai().moderations.create(input=TEXTS, extra_body={"threshold": 0})

    dialogs = [[{"role": "user", "content": text}] for text in TEXTS]
    expected = moderate(guard, dialogs)  # type: ignore[arg-type]
    scores = [result.model_dump()["score"] for result in answer.results]
    assert scores == pytest.approx([it.score for it in expected], rel=1e-3)
    assert [result.flagged for result in answer.results] == [True, True]


def test_one_string_is_one_result_and_flagged_from_the_threshold_on(running: Running) -> None:
    answer = running.post("/v1/moderations", {"input": TEXTS[0]}).json()

    (result,) = answer["results"]
    assert result["flagged"] == (result["score"] >= 0.5)


def test_a_string_that_fills_the_context_is_refused(running: Running) -> None:
    answer = running.post("/v1/moderations", {"input": "no " * 3000})

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_texts_that_each_fit_are_judged_however_long_they_are_together(guard: Llama) -> None:
    parser = RequestParser(guard, ServeSettings("guard"))
    text = "How do I bake bread? " * 100
    longest = max(map(len, guard.tokenizer.token_bytes()))
    count = guard.max_seq_len * longest // len(text) + 1

    parsed = parser.moderation({"input": [text] * count})

    assert len(parsed.choices) == count > 1
    with pytest.raises(ApiError, match="context"):
        parser.moderation({"input": [text, "a" * guard.max_seq_len * longest + "a"]})
