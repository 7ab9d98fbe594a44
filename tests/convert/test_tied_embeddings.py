"""Tied embeddings are the same model everywhere: read, run, imported, exported, verified.

Judged by transformers, which unties a stored output layer that differs from the embedding.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import below, which reads it

import numpy as np
import pytest
import transformers
from lazy_torch import needs_torch, torch
from safetensors import safe_open
from safetensors.numpy import save_file

from llamakit.api import export, import_checkpoint, open_checkpoint, reshard, verify
from llamakit.checkpoint.hf_names import to_huggingface
from llamakit.llama.loading import LoadSpec, load_on_ranks
from llamakit.protocols import Checkpoint

TOKENS = [1, 5, 23, 7, 0, 11]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 24,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 16384,
    "tie_word_embeddings": True,
    "dtype": "float32",
}
ROPE = {
    1: {"rope_type": "default", "rope_theta": 10000.0},
    0: {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}


@pytest.fixture(params=[0, 1], ids=["axis 0", "axis 1"])
def axis(request: pytest.FixtureRequest) -> int:
    """The axis on which Meta's format splits the embedding of the model."""
    return int(request.param)


@pytest.fixture(params=["absent", "equal", "different"])
def lm_head(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(axis: int, lm_head: str, tmp_path: Path) -> Path:
    """A Hugging Face folder that says that its embeddings are tied."""
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | {"rope_parameters": ROPE[axis]}))
    random = np.random.default_rng(axis)
    shapes = {"tok_embeddings": (24, 16), "norm": (16,)}
    layer = {"attention.wq": (16, 16), "attention.wk": (8, 16), "attention.wv": (8, 16)}
    layer |= {"attention.wo": (16, 16), "feed_forward.w1": (48, 16), "feed_forward.w2": (16, 48)}
    layer |= {"feed_forward.w3": (48, 16), "attention_norm": (16,), "ffn_norm": (16,)}
    for index in range(2):
        shapes |= {f"layers.{index}.{name}": shape for name, shape in layer.items()}
    tensors = {
        str(to_huggingface(f"{name}.weight")): random.normal(size=shape).astype("float32")
        for name, shape in shapes.items()
    }
    if lm_head != "absent":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    if lm_head == "different":
        tensors["lm_head.weight"][-1] += 1  # only the last row
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def judged(folder: Path) -> np.ndarray:
    """Return the logits that transformers computes after ``TOKENS``."""
    dtype = torch.float32  # first: skips where there is no torch
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=dtype)
    with torch.no_grad():
        return np.asarray(model(torch.tensor([TOKENS])).logits[0, -1])


def computed(folder: Path, ranks: int = 1) -> np.ndarray:
    """Return the logits that llamakit computes after ``TOKENS``."""
    from llamakit.runtime.cache_slots import CacheSlots

    spec = LoadSpec(str(folder), "float32", "cpu")
    executor = load_on_ranks(spec, open_checkpoint(folder), ranks, led=False, progress=None)
    try:
        return np.asarray(CacheSlots(executor, 1, 16).forward(0, [TOKENS])[0][0])
    finally:
        executor.group.release()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep two ranks, so that each test does not start them again."""
    from llamakit.runtime import rank_setup

    group = rank_setup.join(2)
    group.acquire()
    with contextlib.closing(contextlib.ExitStack()) as undo:
        undo.callback(group.release)
        yield


@needs_torch
def test_the_logits_are_those_of_transformers(source: Path) -> None:
    assert computed(source) == pytest.approx(judged(source), abs=1e-4)


@needs_torch
def test_the_logits_are_the_same_on_two_ranks(source: Path, two_ranks: None) -> None:
    assert computed(source, 2) == pytest.approx(judged(source), abs=1e-4)


@pytest.mark.parametrize("shards", [1, 2])
def test_imported_shards_give_the_same_logits_and_come_back(
    source: Path, axis: int, lm_head: str, shards: int, tmp_path: Path
) -> None:
    expected = judged(source)
    tied = lm_head != "different"

    import_checkpoint(source, tmp_path / "meta", shards)
    reshard(tmp_path / "meta", tmp_path / "again", 3 - shards)
    export(tmp_path / "again", tmp_path / "back")

    for name in ("meta", "again"):
        checkpoint = open_checkpoint(tmp_path / name)
        assert checkpoint.params.tied_embeddings == tied
        assert checkpoint.parameters["tok_embeddings.weight"].axis == axis
        assert verify(tmp_path / name, deep=True).good
        assert computed(tmp_path / name) == pytest.approx(expected, abs=1e-4)
    assert stores_output_once(tmp_path / "meta") == (tied and axis == 0)
    assert judged(tmp_path / "back") == pytest.approx(expected, abs=1e-6)
    with safe_open(tmp_path / "back" / "model.safetensors", "np") as file:
        assert ("lm_head.weight" in file.keys()) == (not tied)  # noqa: SIM118


@needs_torch
def test_safetensors_with_metas_names_hold_an_output_layer(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "st", "safetensors")

    checkpoint = open_checkpoint(tmp_path / "st")
    assert np.array_equal(checkpoint.read("output.weight"), output_of(open_checkpoint(source)))
    assert verify(tmp_path / "st", deep=True).good
    assert computed(tmp_path / "st") == pytest.approx(judged(source), abs=1e-4)


def test_a_folder_is_verified(source: Path) -> None:
    assert verify(source, deep=True).good


def test_shards_on_columns_without_an_output_layer_are_resharded(make_meta, tmp_path: Path) -> None:
    params = {"dim": 16, "n_layers": 1, "n_heads": 4, "vocab_size": 24, "multiple_of": 16}
    folder = make_meta(tmp_path / "two", params | {"use_scaled_rope": True}, 2, axis=1)
    for path in folder.glob("*.pth"):
        shard = torch.load(path)
        del shard["output.weight"]
        torch.save(shard, path)

    reshard(folder, tmp_path / "four", 4)

    four = open_checkpoint(tmp_path / "four")
    assert np.array_equal(four.read("output.weight"), four.read("tok_embeddings.weight"))
    assert four.params.tied_embeddings


def stores_output_once(folder: Path) -> bool:
    shard = torch.load(folder / "consolidated.00.pth")
    same: bool = shard["output.weight"].data_ptr() == shard["tok_embeddings.weight"].data_ptr()
    return same


def output_of(checkpoint: Checkpoint) -> np.ndarray:
    tied = checkpoint.params.tied_embeddings
    return checkpoint.read("tok_embeddings.weight" if tied else "output.weight")
