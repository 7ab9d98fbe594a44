"""``/v1/moderations`` judges as ``llamakit.api.moderate`` does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from guard_checkpoint import LLAMA_3, write_guard
from server_kit import Running, thread

from llamakit.api import Llama, moderate
from llamakit.serve.api_errors import ApiError
from llamakit.serve.request_parser import RequestParser
from llamakit.serve.server_settings import Limits, ServeSettings

TEXTS = ["How do I bake bread?", "Hello"]


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    folder = write_guard(tmp_path_factory.mktemp("models") / "guard", "unsafe\nS1")
    with Llama.open(folder, dtype="float32", max_seq_len=2048, max_batch_size=2) as llama:
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
    assert result["flagged"]
    assert result["score"] >= 0.5
    assert result["categories"] == {"S1": True}


def test_a_servers_limit_of_tokens_does_not_cut_a_verdict(guard: Llama) -> None:
    with thread(guard, limits=Limits(new_tokens=1)) as running:
        (result,) = running.post("/v1/moderations", {"input": TEXTS[0]}).json()["results"]

    assert result["text"] == "unsafe\nS1"


def test_a_llama_3_that_says_neither_word_is_refused() -> None:
    with Llama.open(LLAMA_3, max_seq_len=2048) as llama, thread(llama) as running:
        answer = running.post("/v1/moderations", {"input": TEXTS})

    assert answer.status_code == 400
    assert "this model is no Llama Guard: it answered '" in answer.json()["error"]["message"]


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
