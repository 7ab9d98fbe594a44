"""RoPE settings are computed or named, and alone make no Llama 3 of a Llama 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamakit import Llama
from llamakit.api import import_checkpoint, inspect, open_checkpoint, reshard
from llamakit.checkpoint.pth_reader import PthFile
from llamakit.errors import UnsupportedModelError

EMBEDDING = "tok_embeddings.weight"


def set_rope(folder: Path, **settings: object) -> Path:
    config = json.loads((folder / "config.json").read_text())
    rope = {"rope_theta": 10000.0, **settings}
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    return folder


@pytest.mark.parametrize("kind", ["linear", "dynamic"])
def test_case_12_a_scaling_that_is_computed_makes_no_llama_3(hf: Path, kind: str) -> None:
    set_rope(hf, rope_type=kind, factor=2.0)

    with Llama.open(hf) as llama:
        assert llama.generate([[1, 300]], max_gen_len=1, temperature=0)[0]
    assert inspect(hf).generation == "llama 1/2"


def test_case_12_the_older_spelling_counts_next_to_the_newer(hf: Path) -> None:
    config = json.loads((hf / "config.json").read_text())
    linear = {"type": "linear", "factor": 2.0}
    (hf / "config.json").write_text(json.dumps(config | {"rope_scaling": linear}))

    params = open_checkpoint(hf).params

    assert "rope_parameters" in config
    assert params.rope_scaling == linear
    assert params.rope_theta == 10000.0


@pytest.mark.parametrize("place", ["outside", "inside"])
def test_case_12_a_rotation_of_a_part_of_each_head_is_refused(hf: Path, place: str) -> None:
    config = json.loads((hf / "config.json").read_text())
    within = config["rope_parameters"] if place == "inside" else config
    within["partial_rotary_factor"] = 0.5
    (hf / "config.json").write_text(json.dumps(config))

    with pytest.raises(UnsupportedModelError, match=r"'partial_rotary_factor' is 0\.5"):
        open_checkpoint(hf)


def test_case_12_two_bases_are_warned_of(hf: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps(config | {"rope_theta": 500000.0}))

    params = open_checkpoint(hf).params

    assert params.rope_theta == config["rope_parameters"]["rope_theta"]
    assert "two values of 'rope_theta'" in caplog.text


@pytest.mark.parametrize("kind", ["yarn", "longrope"])
def test_case_12_a_scaling_that_is_not_computed_is_named(hf: Path, kind: str) -> None:
    set_rope(hf, rope_type=kind, factor=2.0)

    with pytest.raises(UnsupportedModelError, match=f"scaling of type {kind} is not supported"):
        Llama.open(hf)
    assert inspect(hf).generation == "llama 1/2"


def test_case_12_a_base_of_500000_with_sentencepiece_is_llama_2(hf: Path, tmp_path: Path) -> None:
    set_rope(hf, rope_type="default", rope_theta=500000.0)

    import_checkpoint(hf, tmp_path / "out", 2)

    for shard in ("consolidated.00.pth", "consolidated.01.pth"):
        assert PthFile.open(tmp_path / "out" / shard).tensors[EMBEDDING].shape == (576, 32)


def test_case_12_so_it_is_in_metas_format(meta: Path, tmp_path: Path) -> None:
    params = json.loads((meta / "params.json").read_text())
    (meta / "params.json").write_text(json.dumps(params | {"rope_theta": 500000.0}))

    reshard(meta, tmp_path / "out", 2)

    assert open_checkpoint(tmp_path / "out").parameters[EMBEDDING].axis == 1
    assert inspect(meta).generation == "llama 1/2"
