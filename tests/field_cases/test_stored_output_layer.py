"""Tied embeddings: what is stored is used, written whole, and the same on every number of ranks.

The whole of it, judged by transformers, is in ``tests/convert/test_tied_embeddings.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from llamakit import Llama
from llamakit.api import diff, export, import_checkpoint, open_checkpoint, verify

EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


def tie(folder: Path, *, stored: bool) -> Path:
    """Say that the output layer is the embedding; keep the one that is stored, or not."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    if not stored:
        tensors = load_file(folder / "model.safetensors")
        del tensors[OUTPUT]
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_case_01_an_output_layer_that_is_stored_and_differs_is_used(
    hf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tie(hf, stored=True)

    with Llama.open(hf, dtype="float32") as llama:
        tokens, _ = llama.generate([[1, 300, 301, 302, 303]], max_gen_len=1, temperature=0)
    export(hf, tmp_path / "again")

    assert tokens == [[385]]
    assert "lm_head.weight is used" in caplog.text
    assert OUTPUT in load_file(tmp_path / "again" / "model.safetensors")
    assert verify(hf, deep=True).good


def test_case_01_so_is_one_that_the_index_leaves_out(hf: Path) -> None:
    tie(hf, stored=True)
    (hf / "model.safetensors").rename(hf / "model-00001-of-00001.safetensors")
    names = load_file(hf / "model-00001-of-00001.safetensors").keys() - {OUTPUT}
    places = dict.fromkeys(names, "model-00001-of-00001.safetensors")
    (hf / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))

    assert "output.weight" in open_checkpoint(hf).parameters


@pytest.mark.parametrize("size", [1, 2])
def test_case_02_a_tied_llama_2_is_imported_with_both_names(
    hf: Path, tmp_path: Path, size: int
) -> None:
    tie(hf, stored=False)

    import_checkpoint(hf, tmp_path / "out", size)

    imported = open_checkpoint(tmp_path / "out")
    assert {"tok_embeddings.weight", "output.weight"} <= imported.parameters.keys()
    assert diff(hf, tmp_path / "out").same


def test_case_02_it_is_exported_too_and_so_is_that_export(hf: Path, tmp_path: Path) -> None:
    tie(hf, stored=False)

    export(hf, tmp_path / "one", "safetensors")
    export(hf, tmp_path / "two")
    import_checkpoint(tmp_path / "two", tmp_path / "three", 2)

    assert "output.weight" in open_checkpoint(tmp_path / "one").parameters
    assert diff(hf, tmp_path / "three").same


def test_case_03_two_ranks_answer_as_one_does(hf: Path, run_llamakit) -> None:
    tie(hf, stored=False)
    words = ("generate", "-m", hf, "--temperature", "0", "--max-gen-len", "4", "--json")
    words = (*words, "--seed", "1", "a")

    one, two = (run_llamakit(*words, "--model-parallel-size", size) for size in ("1", "2"))

    assert two.returncode == 0, two.stderr
    assert json.loads(two.stdout) == json.loads(one.stdout)
