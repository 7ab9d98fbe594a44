"""The text part of Llama 3.2 Vision is a model of its own."""

from __future__ import annotations

import json

import pytest
from lazy_torch import torch

from llamakit.api import export, inspect, open_checkpoint, reshard, verify
from llamakit.checkpoint.model_support import check_loadable


@pytest.fixture
def vision_case(reference_cases_llama3, tmp_path):
    """A reference case under the names of Llama 3.2 Vision, in two shards."""
    reshard(reference_cases_llama3 / "llama31-mp8", tmp_path / "vision", 2)
    folder = tmp_path / "vision"
    params = json.loads((folder / "params.json").read_text())
    images = {"vision_chunk_size": 448, "vision_max_num_chunks": 4}
    images |= {"vision_num_cross_attention_layers": 1}
    (folder / "params.json").write_text(json.dumps(params | images))
    for name in ("checklist.chk", "llamakit.json"):
        (folder / name).unlink()
    for path in folder.glob("*.pth"):
        shard = {f"text_model.{name}": tensor for name, tensor in torch.load(path).items()}
        shard["text_model.rope.freqs"] = torch.ones(4)
        shard["text_model.learnable_embedding.weight"] = torch.ones(4, 128)
        shard["text_model.cross_attention_layers.0.gate_attn"] = torch.ones(1)
        shard["vision_model.vision_projection.bias"] = torch.ones(128)
        torch.save(shard, path)
    return folder


def same(one, other):
    names = set(other.parameters)
    assert set(one.parameters) - {"rope.freqs"} == names
    return all(one.read(name).tobytes() == other.read(name).tobytes() for name in names)


def test_the_text_model_is_read_and_what_is_left_out_is_said(vision_case, reference_cases_llama3):
    checkpoint = open_checkpoint(vision_case)

    check_loadable(checkpoint, 4)
    assert (checkpoint.generation, checkpoint.embedding_axis) == ("llama 3", 0)
    assert same(checkpoint, open_checkpoint(reference_cases_llama3 / "llama31-mp8"))
    report = inspect(vision_case)
    assert report.good
    assert any(
        it == "only the text model is read; left out: the vision encoder, the cross-attention "
        "layers, the embeddings of image tokens"
        for it in report.oddities
    )
    assert verify(vision_case, deep=True).good


def test_conversions_write_the_text_model_alone(vision_case, reference_cases_llama3, tmp_path):
    reshard(vision_case, tmp_path / "four", 4)
    export(vision_case, tmp_path / "hf")

    expected = open_checkpoint(reference_cases_llama3 / "llama31-mp8")
    for name in ("four", "hf"):
        assert same(open_checkpoint(tmp_path / name), expected)
    params = json.loads((tmp_path / "four" / "params.json").read_text())
    assert not [key for key in params if key.startswith("vision")]
    assert params["use_scaled_rope"]
