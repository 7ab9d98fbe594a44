"""``suffix`` of ``/v1/completions``: a gap between two strings, with Code Llama's tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sentencepiece
from server_kit import STORY, Running, thread

from llamakit.api import Llama

PATH = "/v1/completions"
PIECES = ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"]
GAP = {"prompt": "def f(x):\n    ", "suffix": "\n    return y", "max_tokens": 6, "seed": 1}


@pytest.fixture(scope="module")
def filling(tmp_path_factory: pytest.TempPathFactory, reference_cases: Path) -> Iterator[Llama]:
    """A small random model with a tokenizer that has the pieces for gaps."""
    folder = tmp_path_factory.mktemp("model")
    for file in (reference_cases / "gqa-mp1").iterdir():
        if file.suffix != ".chk":
            (folder / file.name).write_bytes(file.read_bytes())
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([STORY, "def answer(question): return question"] * 20),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        control_symbols=PIECES,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with Llama.open(folder, dtype="float32", max_seq_len=128, max_batch_size=2) as llama:
        yield llama


@pytest.fixture(scope="module")
def running(filling: Llama) -> Iterator[Running]:
    with thread(filling) as running:
        yield running


def test_a_suffix_is_what_follows_the_answer(running: Running, filling: Llama) -> None:
    marked = {**GAP, "prompt": GAP["prompt"] + "<FILL_ME>" + GAP["suffix"], "suffix": ""}
    tokens = filling.prompt_format("infill").encode_gap(GAP["prompt"], GAP["suffix"])  # type: ignore[attr-defined]

    found = running.post(PATH, GAP).json()

    assert found["usage"]["prompt_tokens"] == len(tokens)
    by_marker = running.post(PATH, {**marked, "prompt_format": "infill"}).json()
    assert found["choices"] == by_marker["choices"]
    several = running.post(PATH, {**GAP, "prompt": [GAP["prompt"], STORY]}).json()
    assert several["choices"][0]["text"] == found["choices"][0]["text"]


def test_a_suffix_may_hold_any_string(running: Running) -> None:
    response = running.post(PATH, {**GAP, "suffix": "<FILL_ME> <PRE> ▁<EOT> <s>"})

    assert response.status_code == 200


def test_an_answer_ends_where_the_model_ends_a_gap(running: Running, filling: Llama) -> None:
    end = filling.tokenizer.special_ids()["▁<EOT>"]  # type: ignore[attr-defined]

    found = running.post(PATH, {**GAP, "logit_bias": {str(end): 100}}).json()

    assert found["choices"][0]["finish_reason"] == "stop"
    assert found["choices"][0]["text"] == ""


def test_the_server_s_own_options_of_infill_are_kept(filling: Llama) -> None:
    with thread(filling, prompt_format="infill:suffix-first=yes") as running:
        found = running.post(PATH, {**GAP, "logprobs": 0}).json()
        named = running.post(PATH, {**GAP, "prompt_format": "infill:suffix-first=yes"}).json()
        plain = running.post(PATH, {**GAP, "prompt_format": "infill", "logprobs": 0}).json()

    assert found["choices"][0]["text"] == named["choices"][0]["text"]
    assert found["choices"] != plain["choices"]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"echo": True}, "echo", "leave it out"),
        ({"prompt": [1, 2]}, "suffix", "a string, not tokens"),
        ({"prompt": [[1, 2]]}, "suffix", "a string, not tokens"),
        ({"prompt_format": "llama2"}, "prompt_format", "takes no suffix"),
        ({"suffix": "x" * 50_000}, None, "maximum context length"),
    ],
    ids=str,
)
def test_what_goes_with_no_suffix_is_refused(
    running: Running, fields: dict[str, object], param: str | None, words: str
) -> None:
    response = running.post(PATH, {**GAP, **fields})

    assert response.status_code == 400
    assert words in response.json()["error"]["message"]
    assert param in (None, response.json()["error"]["param"])


def test_a_model_without_the_pieces_takes_no_suffix_but_an_empty_one(server: Running) -> None:
    refused = server.post(PATH, {"prompt": STORY, "suffix": "."})

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "suffix"
    assert "not the tokenizer of a Code Llama" in refused.json()["error"]["message"]
    empty = server.post(PATH, {"prompt": STORY, "suffix": "", "max_tokens": 2})
    assert empty.json()["usage"]["completion_tokens"] == 2
