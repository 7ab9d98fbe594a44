"""``/v1/embeddings`` gives the vectors of ``llamakit.api.embed``."""

from __future__ import annotations

import pytest
from server_kit import Running

from llamakit.api import Llama, embed

NAME = "llama-demo"
TEXTS = ["A rank holds one slice.", "Once upon a time"]


def test_openais_client_gets_the_vectors(server: Running, llama: Llama) -> None:
    answer = server.openai().embeddings.create(model=NAME, input=TEXTS)  # asks for base64
    plain = server.openai().embeddings.create(model=NAME, input=TEXTS, encoding_format="float")

    expected = embed(llama, TEXTS)
    for result in (answer, plain):
        assert [item.index for item in result.data] == [0, 1]
        for item, vector in zip(result.data, expected, strict=True):
            assert item.embedding == pytest.approx(vector, abs=1e-4)
    tokens = sum(len(llama.tokenizer.encode(text, bos=True)) for text in TEXTS)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens


def test_tokens_and_the_last_state_may_be_asked_for(server: Running, llama: Llama) -> None:
    tokens = llama.tokenizer.encode(TEXTS[0], bos=True)

    answer = server.post("/v1/embeddings", {"input": tokens, "pooling": "last"}).json()

    (vector,) = embed(llama, TEXTS[:1], pooling="last")
    assert answer["data"][0]["embedding"] == pytest.approx(vector, abs=1e-4)


def test_the_models_own_number_of_dimensions_may_be_asked_for(
    server: Running, llama: Llama
) -> None:
    size = llama.checkpoint.params.dim

    answer = server.post("/v1/embeddings", {"input": TEXTS[0], "dimensions": size}).json()

    assert len(answer["data"][0]["embedding"]) == size


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": "a", "dimensions": 8}, "hidden state"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": []}, "input"),
        ({"input": [99999999]}, "input has the token ID"),
        ({"input": [1e300, 1]}, "input has the token ID"),
        ({"input": "no " * 30000}, "context"),
        ({"input": {"a": 1}}, "input"),
        ({}, "input"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(
    server: Running, fields: dict[str, object], message: str
) -> None:
    answer = server.post("/v1/embeddings", fields)

    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
