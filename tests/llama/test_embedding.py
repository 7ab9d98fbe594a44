"""``embed``: the last hidden states of transformers on the export.

On any number of ranks they are the same: ``runtime/test_hidden_states.py``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import below, which reads it

import pytest
import torch
import transformers

from llamakit.api import Llama, embed, export
from llamakit.errors import PromptTooLongError, UsageError

TEXTS = ["A rank holds one slice.", "Once upon a time there was a llama that ate grass.", ""]


@pytest.fixture(scope="module")
def llama(reference_cases: Path) -> Iterator[Llama]:
    case = reference_cases / "gqa-mp1"
    with Llama.open(case, dtype="float32", max_seq_len=64, max_batch_size=2) as llama:
        yield llama


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_vectors_are_made_of_transformers_last_hidden_states(
    llama: Llama, reference_cases: Path, tmp_path: Path, pooling: str
) -> None:
    export(reference_cases / "gqa-mp1", tmp_path / "hf", tokenizer=llama.tokenizer.path)
    model = transformers.AutoModel.from_pretrained(tmp_path / "hf", dtype=torch.float32)

    vectors = embed(llama, TEXTS, pooling=pooling)

    for text, vector in zip(TEXTS, vectors, strict=True):
        with torch.no_grad():
            tokens = torch.tensor([llama.tokenizer.encode(text, bos=True)])
            states = model(tokens).last_hidden_state[0]
        expected = states.mean(0) if pooling == "mean" else states[-1]
        expected = expected / expected.norm()
        assert vector == pytest.approx(expected.tolist(), abs=1e-4)


def test_what_the_cache_holds_changes_nothing(llama: Llama) -> None:
    first, again = embed(llama, TEXTS[:2]), embed(llama, TEXTS[:2])

    assert [pytest.approx(it, abs=1e-4) for it in again] == first


def test_a_text_may_fill_the_context_and_no_more(llama: Llama) -> None:
    fits = next(
        text
        for text in ("a " * count for count in range(64, 0, -1))
        if len(llama.tokenizer.encode(text, bos=True)) == 64
    )

    (vector,) = embed(llama, [fits])

    assert sum(it * it for it in vector) == pytest.approx(1)
    with pytest.raises(PromptTooLongError, match="text 2 has"):
        embed(llama, ["a", fits + "a a"])


def test_another_pooling_is_refused(llama: Llama) -> None:
    with pytest.raises(UsageError, match="'max'; it has to be mean or last"):
        embed(llama, ["a"], pooling="max")


def test_the_command_prints_a_vector_a_line(
    run_llamakit: Callable[..., Any], tmp_path: Path, llama: Llama, reference_cases: Path
) -> None:
    (tmp_path / "texts.jsonl").write_text(json.dumps({"id": "b", "prompt": TEXTS[1]}))
    model = ("-m", reference_cases / "gqa-mp1", "--dtype", "float32")

    done = run_llamakit("embed", *model, TEXTS[0], "--prompts", "texts.jsonl")

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("id") for line in lines] == [None, "b"]
    for line, vector in zip(lines, embed(llama, TEXTS[:2]), strict=True):
        assert line["embedding"] == pytest.approx(vector, abs=1e-4)


def test_the_command_names_a_text_that_is_too_long_by_its_number_among_all(
    run_llamakit: Callable[..., Any], reference_cases: Path
) -> None:
    model = ("-m", reference_cases / "gqa-mp1", "--max-seq-len", "16", "--max-batch-size", "1")

    done = run_llamakit("embed", *model, "a b", "c d", "a " * 20)

    assert (done.returncode, done.stdout) == (1, "")
    assert "text 3 has" in done.stderr


def test_the_command_says_how_to_embed_a_dialog(
    run_llamakit: Callable[..., Any], tmp_path: Path
) -> None:
    line = {"messages": [{"role": "user", "content": "Hello"}]}
    (tmp_path / "texts.jsonl").write_text(json.dumps(line))

    done = run_llamakit("embed", "--prompts", "texts.jsonl")

    assert done.returncode == 2
    assert 'prompt 1 is a dialog, and a text is embedded as it is: pass it as {"prompt":' in (
        done.stderr
    )


def test_a_lines_own_keys_are_with_its_vector(
    run_llamakit: Callable[..., Any], tmp_path: Path, reference_cases: Path
) -> None:
    lines = [
        {"id": 7, "prompt": "A llama.", "text": "title", "seed": 5, "tools": [1]},
        {"custom_id": "b", "url": "/v1/completions", "body": {"prompt": "A", "model": "x"}, "n": 2},
    ]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)))

    done = run_llamakit("embed", "-m", reference_cases / "gqa-mp1", "--prompts", "texts.jsonl")

    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for answer in answers:
        assert answer.pop("embedding")
    assert answers == [
        {"index": 0, "id": 7, "text": "title", "seed": 5, "tools": [1]},
        {"index": 1, "id": "b", "n": 2},
    ]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"prompt": "A", "embedding": 5}, "the key 'embedding' is one of the answer's"),
        ({"prompt": "A", "index": 5}, "the key 'index' is one of the answer's"),
        ({"body": {"prompt": "A"}, "embedding": 5}, "the key 'embedding' is one of the answer's"),
        ({"body": {"prompt": "A"}, "id": 5}, "the key 'id' is one of the answer's"),
        ({"body": {"prompt": "A", "seed": 5}}, "the body has 'seed', which embed does not read"),
        ({"body": {"prompt": "A", "temperature": 0}}, "'temperature', which embed does not read"),
    ],
)
def test_what_a_line_would_lose_is_refused_by_name(
    run_llamakit: Callable[..., Any], tmp_path: Path, line: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "texts.jsonl").write_text(json.dumps(line))

    done = run_llamakit("embed", "--prompts", "texts.jsonl")

    assert (done.returncode, done.stdout) == (1, "")
    assert "texts.jsonl, line 1: " in done.stderr
    assert sentence in done.stderr
