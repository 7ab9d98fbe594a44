"""``embed``: the last hidden states of transformers on the export, on any number of ranks."""

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


def test_two_ranks_and_what_the_cache_holds_change_nothing(
    llama: Llama, reference_cases: Path
) -> None:
    first, again = embed(llama, TEXTS[:2]), embed(llama, TEXTS[:2])

    case = reference_cases / "gqa-mp1"
    with Llama.open(case, dtype="float32", max_seq_len=64, model_parallel_size=2) as two:
        ranks = embed(two, TEXTS[:2])

    for vectors in (again, ranks):
        assert [pytest.approx(it, abs=1e-4) for it in vectors] == first


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
