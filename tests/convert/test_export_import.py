"""To a Hugging Face folder and back, and to .safetensors with Meta's names."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from lazy_torch import needs_torch, torch
from safetensors import safe_open

from llamakit.api import export, import_checkpoint, open_checkpoint, reshard
from llamakit.checkpoint.params import hidden_dim
from llamakit.convert.export import parse_size
from llamakit.errors import OptionError, UnknownNameError, UnsupportedModelError

PARAMS = {"dim": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 24} | {
    "multiple_of": 16,
    "norm_eps": 1e-5,
}


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same_parameters(one, other, tensor_bytes):
    ones, others = (tensor_bytes(open_checkpoint(path)) for path in (one, other))
    ones.pop("rope.freqs", None)
    assert ones == others


@pytest.fixture
def source(make_meta, tmp_path):
    return make_meta(tmp_path / "model" / "two", PARAMS, 2, freqs=True)


@settings(max_examples=15)
@given(
    sizes=st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4])),
    kv_heads=st.sampled_from([1, 2, 4]),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    limit=st.integers(500, 20000),
)
def test_to_hugging_face_and_back_keeps_every_byte(
    make_meta, tensor_bytes, sizes, kv_heads, dtype, limit
):
    params = PARAMS | {"n_kv_heads": kv_heads}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_meta(folder / "meta", params, sizes[0], dtype=dtype, freqs=True)

        export(folder / "meta", folder / "hf", max_shard_size=limit)
        import_checkpoint(folder / "hf", folder / "back", sizes[1])

        same_parameters(folder / "meta", folder / "back", tensor_bytes)
        same_parameters(folder / "hf", folder / "back", tensor_bytes)
        expected = make_meta(folder / "expected", params, sizes[1], dtype=dtype)
        for path in expected.glob("*.pth"):
            back = torch.load(folder / "back" / path.name, weights_only=True)
            assert all(torch.equal(back[name], it) for name, it in torch.load(path).items())


@pytest.mark.parametrize("case", ["mha-mp8", "gqa-mp1"])
def test_the_reference_cases_come_back(reference_cases, tmp_path, case, tensor_bytes):
    export(reference_cases / case, tmp_path / "hf")
    import_checkpoint(tmp_path / "hf", tmp_path / "back", 2)

    same_parameters(reference_cases / case, tmp_path / "back", tensor_bytes)
    tokenizer = (reference_cases / "tokenizer.model").read_bytes()
    assert (tmp_path / "back" / "tokenizer.model").read_bytes() == tokenizer


def test_weights_are_permuted_as_transformers_does(source, tmp_path):
    export(source, tmp_path / "hf")

    shards = [torch.load(path) for path in sorted(source.glob("*.pth"))]
    whole = torch.cat([shard["layers.1.attention.wk.weight"] for shard in shards])
    expected = whole.view(2, 2, 2, 16).transpose(1, 2).reshape(8, 16)
    with safe_open(tmp_path / "hf" / "model.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("model.layers.1.self_attn.k_proj.weight"), expected)


@needs_torch
def test_large_files_are_split_and_indexed(source, tmp_path):
    export(source, tmp_path / "hf", max_shard_size="4KB")

    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    names = sorted(path.name for path in (tmp_path / "hf").glob("*.safetensors"))
    assert set(index["weight_map"].values()) == set(names)
    assert names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    found = {}
    for name in names:
        with safe_open(tmp_path / "hf" / name, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        nbytes = sum(it.nbytes for it in tensors.values())
        assert nbytes <= 4000 or len(tensors) == 1
        found |= dict.fromkeys(tensors, name)
        index["metadata"]["total_size"] -= nbytes
    assert found == index["weight_map"]
    assert index["metadata"]["total_size"] == 0


def test_the_same_source_gives_the_same_bytes(source, tmp_path):
    for name in ("one", "other"):
        export(source, tmp_path / name, max_shard_size="4KB")
        export(source, tmp_path / f"st-{name}", "safetensors")

    assert files(tmp_path / "one") == files(tmp_path / "other")
    assert files(tmp_path / "st-one") == files(tmp_path / "st-other")


@needs_torch
def test_safetensors_holds_metas_shards(source, tmp_path):
    export(source, tmp_path / "st", "safetensors")

    for path in source.glob("*.pth"):
        with safe_open(tmp_path / "st" / f"{path.stem}.safetensors", "pt") as file:
            for name, tensor in torch.load(path).items():
                assert torch.equal(file.get_tensor(name), tensor)


def test_the_params_give_the_same_hidden_size(source, tmp_path):
    export(source, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    import_checkpoint(tmp_path / "hf", tmp_path / "back")

    params = json.loads((tmp_path / "back" / "params.json").read_text())
    keys = (params["multiple_of"], params.get("ffn_dim_multiplier"))
    assert hidden_dim(params["dim"], *keys) == config["intermediate_size"]
    assert "max_seq_len" not in params


def test_tied_embeddings_are_stored_once_on_both_sides(make_meta, tmp_path, tensor_bytes):
    params = {key: value for key, value in PARAMS.items() if key != "n_kv_heads"}
    one = make_meta(tmp_path / "meta", params | {"use_scaled_rope": True}, 1, axis=0)
    shard = torch.load(one / "consolidated.00.pth")
    shard["output.weight"] = shard["tok_embeddings.weight"]
    torch.save(shard, one / "consolidated.00.pth")

    export(one, tmp_path / "hf")
    import_checkpoint(tmp_path / "hf", tmp_path / "back")

    with safe_open(tmp_path / "hf" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
    same_parameters(one, tmp_path / "back", tensor_bytes)
    back = torch.load(tmp_path / "back" / "consolidated.00.pth")
    assert back["output.weight"].data_ptr() == back["tok_embeddings.weight"].data_ptr()


def test_scaling_that_params_cannot_say_is_refused(source, tmp_path):
    export(source, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    config.pop("rope_parameters", None)
    config["rope_scaling"] = {"rope_type": "linear", "factor": 2.0}
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))

    with pytest.raises(UnsupportedModelError, match="that no params"):
        import_checkpoint(tmp_path / "hf", tmp_path / "back")

    assert not (tmp_path / "back").exists()


def test_reshard_takes_a_hugging_face_folder_too(source, tmp_path, tensor_bytes):
    export(source, tmp_path / "hf")
    reshard(tmp_path / "hf", tmp_path / "four", 4)

    same_parameters(source, tmp_path / "four", tensor_bytes)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("5GB", 5 * 10**9), ("500 MiB", 500 << 20), ("1.5kb", 1500), (42, 42), ("7", 7)],
)
def test_sizes_are_read(text, nbytes):
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "5XB", "-1", "0", "GB", "1e9"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(OptionError, match="5GB or 500MB"):
        parse_size(text)


def test_wrong_names_are_refused_with_a_hint(source, tmp_path):
    with pytest.raises(UnknownNameError, match="'safetensors'"):
        export(source, tmp_path / "out", "safetensor")
    with pytest.raises(OptionError, match="max_shard_size"):
        export(source, tmp_path / "out", max_shard_sise="5GB")

    assert not (tmp_path / "out").exists()
