"""Llama 4's text model: resharded, exported and inspected, with its stacks kept apart."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import below, which reads it

import pytest
import transformers
from lazy_torch import torch

from llamakit.api import export, inspect, open_checkpoint, reshard, verify
from llamakit.llama.loading import LoadSpec, load_on_ranks


@pytest.fixture
def case(reference_cases_llama3: Path) -> Path:
    return reference_cases_llama3 / "llama4-moe-mp2"


def test_it_is_recognized_and_whole(case: Path) -> None:
    report = inspect(case)

    assert report.good
    assert (report.generation, report.embedding_axis, report.legal_sizes) == (
        "llama 4",
        0,
        (1, 2, 4),
    )
    assert verify(case, deep=True).good


@pytest.mark.parametrize("size", [1, 4])
def test_resharding_there_and_back_keeps_every_tensor(
    case: Path, size: int, tmp_path: Path
) -> None:
    reshard(case, tmp_path / "other", size)
    reshard(tmp_path / "other", tmp_path / "back", 2)

    for name in ("consolidated.00.pth", "consolidated.01.pth"):
        before, after = torch.load(case / name), torch.load(tmp_path / "back" / name)
        assert list(before) == list(after)
        assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert (tmp_path / "back" / "params.json").read_bytes() == (case / "params.json").read_bytes()


def test_one_shard_holds_the_stacks_that_metas_code_expects(case: Path, tmp_path: Path) -> None:
    reshard(case, tmp_path / "one", 1)

    halves = [torch.load(case / f"consolidated.0{rank}.pth") for rank in range(2)]
    whole = torch.load(tmp_path / "one" / "consolidated.00.pth")
    name = "layers.1.feed_forward.experts.moe_w_out_eF_D"
    expected = torch.cat([half[name].view(4, 56, 64) for half in halves], 1).view(4 * 112, 64)
    assert torch.equal(whole[name], expected)
    name = "layers.2.attention.wqkv.weight"
    parts = [half[name].split([32, 16, 16]) for half in halves]
    assert torch.equal(
        whole[name], torch.cat([part for both in zip(*parts, strict=True) for part in both])
    )


@pytest.fixture
def with_plain_layers(case: Path, tmp_path: Path) -> Path:
    """A checkpoint in which every second layer has no experts, as in Maverick."""
    reshard(case, tmp_path / "plain", 1)
    params = json.loads((case / "params.json").read_text())
    params["moe_args"]["interleave_moe_layer_step"] = 2
    (tmp_path / "plain" / "params.json").write_text(json.dumps(params))
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / "plain" / "consolidated.00.pth"
    shard = torch.load(path) | {"vision_projection.weight": torch.ones(2)}
    shard["layers.1.feed_forward.w_in_shared_FD._extra_state"] = io.BytesIO(b"\xff not a tensor")
    shard["layers.2.attention.wo._extra_state"] = io.BytesIO()
    for layer in (0, 2):
        for name in [key for key in shard if key.startswith(f"layers.{layer}.feed_forward.")]:
            del shard[name]
        fused = {"fc1_weight": (416, 64), "fc2_weight": (64, 208), "layer_norm_weight": (64,)}
        for name, shape in fused.items():
            values = torch.randn(shape, generator=generator) * 0.1
            shard[f"layers.{layer}.feed_forward.mlp.{name}"] = values.bfloat16()
    torch.save(shard, path)
    return tmp_path / "plain"


def test_plain_layers_keep_their_fused_tensors(with_plain_layers: Path, tmp_path: Path) -> None:
    reshard(with_plain_layers, tmp_path / "two", 2)
    reshard(tmp_path / "two", tmp_path / "back", 1)

    before = torch.load(with_plain_layers / "consolidated.00.pth", weights_only=False)
    after = torch.load(tmp_path / "back" / "consolidated.00.pth")
    left_out = {name for name in before if name.startswith("vision") or "extra" in name}
    assert set(after) == set(before) - left_out
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_plain_layers_compute_what_transformers_does(
    with_plain_layers: Path, tmp_path: Path
) -> None:
    tokens = [1024, *range(30, 60)]

    export(with_plain_layers, tmp_path / "hf")

    dtype = torch.float32  # first: skips where there is no torch
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=dtype)
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0, -1].tolist()
    assert computed(with_plain_layers, tokens) == pytest.approx(expected, abs=1e-4)


def computed(folder: Path, tokens: list[int]) -> list[float]:
    from llamakit.runtime.cache_slots import CacheSlots

    spec = LoadSpec(str(folder), "float32", "cpu")
    executor = load_on_ranks(spec, open_checkpoint(folder), 1, led=False, progress=None)
    logits: list[float] = CacheSlots(executor, 1, 64).forward(0, [tokens])[0][0].tolist()
    return logits
