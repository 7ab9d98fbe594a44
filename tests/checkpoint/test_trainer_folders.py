"""Folders of torchtune and fairseq2, and of Mistral where it computes as a Llama."""

import json
import re

import pytest
from lazy_torch import torch

import llamakit
from llamakit.checkpoint.layout import axis_of
from llamakit.errors import LlamakitError, MissingShardError, ParametersError, UnsupportedModelError

_FAIRSEQ2 = {
    "tok_embeddings": "decoder_frontend.embed",
    "layers.": "decoder.layers.",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.output_proj",
    "attention_norm": "self_attn_layer_norm",
    "feed_forward.w1": "ffn.gate_proj",
    "feed_forward.w2": "ffn.output_proj",
    "feed_forward.w3": "ffn.inner_proj",
    "ffn_norm": "ffn_layer_norm",
}
_TORCHTUNE = {
    "attention.wq": "attn.q_proj",
    "attention.wk": "attn.k_proj",
    "attention.wv": "attn.v_proj",
    "attention.wo": "attn.output_proj",
    "feed_forward": "mlp",
    "attention_norm.weight": "sa_norm.scale",
    "ffn_norm.weight": "mlp_norm.scale",
}


def renamed(name, parts):
    whole = {
        "norm.weight": "norm.scale" if parts is _TORCHTUNE else "decoder.layer_norm.weight",
        "output.weight": "output.weight" if parts is _TORCHTUNE else "final_proj.weight",
    }
    for ours, theirs in parts.items():
        name = name.replace(ours, theirs)
    return whole.get(name, name)


@pytest.fixture
def tensors(weights):
    return {name: torch.from_numpy(array) for name, array in weights.items()}


@pytest.fixture
def folder(params, tmp_path):
    """A folder with its params.json in the one above."""
    (tmp_path / "params.json").write_text(json.dumps(params))
    made = tmp_path / "step_10"
    made.mkdir()
    return made


def assert_holds(folder, form, weights):
    checkpoint = llamakit.open_checkpoint(folder)

    assert checkpoint.form == form
    assert set(checkpoint.parameters) == set(weights)
    for name, array in weights.items():
        assert checkpoint.read(name).tobytes() == array.tobytes(), name


@pytest.mark.parametrize("wrap", [dict, lambda it: {"model": it, "epoch": 3}])
def test_fairseq2s_single_file_is_opened(folder, tensors, weights, wrap):
    renamed_ = {renamed(name, _FAIRSEQ2): it for name, it in tensors.items()}
    torch.save(wrap(renamed_), folder / "model.pt")

    assert_holds(folder, "fairseq2", weights)


@pytest.mark.parametrize(("pipeline", "tensor", "data"), [(1, 1, 3), (1, 2, 1), (2, 2, 3)])
@pytest.mark.parametrize("embedding_axis", [0, 1])
def test_the_files_of_fairseq2s_ranks_are_put_together(
    folder, tensors, weights, pipeline, tensor, data, embedding_axis
):
    save_ranks(folder / "model", tensors, (pipeline, tensor, data), embedding_axis)

    assert_holds(folder, "fairseq2", weights)


def save_ranks(root, tensors, sizes, embedding_axis):
    """Split as fairseq2 does: by layers, by its sharding specs, and by rows for FSDP."""
    for stage in range(sizes[0]):
        for rank in range(sizes[1]):
            place = root / f"pp_{stage:02d}" / f"tp_{rank:02d}"
            place.mkdir(parents=True)
            for part in range(sizes[2]):
                shard = {}
                for name, whole in tensors.items():
                    layer = re.match(r"layers\.([0-9]+)", name)
                    axis = axis_of(name, embedding_axis)
                    own = whole if axis is None else whole.chunk(sizes[1], axis)[rank]
                    rows = own.chunk(sizes[2])
                    if (int(layer[1]) if layer else 0) % sizes[0] == stage and part < len(rows):
                        shard[renamed(name, _FAIRSEQ2)] = rows[part].clone()
                torch.save(shard, place / f"sdp_{part:02d}.pt")


def test_the_file_of_a_rank_that_is_missing_is_counted(folder, tensors):
    save_ranks(folder, tensors, (1, 2, 2), 1)
    (folder / "pp_00" / "tp_01" / "sdp_01.pt").unlink()

    with pytest.raises(MissingShardError, match=r"has 3 files of ranks.*expected 1 × 2 × 2"):
        llamakit.open_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("final_proj.weight", (), r"of the shapes \(\), \(.*no parameter of a Llama"),
        ("decoder.layers.0.self_attn.q_proj.weight", (3,), "of the shapes"),
        ("decoder_frontend.embed.weight", None, "do not fit"),
    ],
    ids=["a scalar", "another number of axes", "no embedding"],
)
def test_files_of_ranks_that_do_not_go_together_are_refused(folder, tensors, name, shape, message):
    save_ranks(folder, tensors, (1, 2, 1), 0)
    change_first_rank(folder, name, shape)

    with pytest.raises(LlamakitError, match=message):
        llamakit.reshard(folder, folder.with_name("out"), 1)


def test_a_norm_is_read_from_the_rank_that_has_it(folder, tensors, weights):
    save_ranks(folder, tensors, (1, 2, 1), 0)
    change_first_rank(folder, "decoder.layer_norm.weight", None)

    assert_holds(folder, "fairseq2", weights)


def change_first_rank(folder, name, shape):
    """Give a tensor of the first rank another shape, or leave it out."""
    first = folder / "pp_00" / "tp_00" / "sdp_00.pt"
    shard = torch.load(first)
    del shard[name]
    torch.save(shard if shape is None else shard | {name: torch.ones(shape)}, first)


def test_torchtunes_own_names_and_its_files_with_metas_are_opened(folder, tensors, weights):
    file = folder / "torchtune_model_0.pt"
    torch.save({renamed(name, _TORCHTUNE): it for name, it in tensors.items()}, file)
    torch.save({"seed": 1}, folder / "recipe_state.pt")
    assert_holds(folder, "torchtune", weights)

    file.unlink()
    torch.save(tensors, folder / "meta_model_0.pt")

    assert_holds(folder, "torchtune", weights)


def test_a_foreign_tensor_is_refused(folder, tensors):
    named = {renamed(name, _TORCHTUNE): it for name, it in tensors.items()}
    torch.save(named | {"layers.0.attn.q_proj.lora_a.weight": torch.ones(1)}, folder / "a.pt")

    with pytest.raises(ParametersError, match="that no Llama has"):
        llamakit.open_checkpoint(folder)


@pytest.fixture
def mistral(folder, params, tensors):
    """Mistral's folder: one .safetensors with Meta's names, and other keys in params.json."""
    from safetensors.torch import save_file

    save_file(tensors, folder / "consolidated.safetensors")
    values = {key: it for key, it in params.items() if key != "multiple_of"}
    return folder, values | {"hidden_dim": 48, "head_dim": 4, "vocab_size": 24}


def test_mistrals_folder_is_opened_and_converted(mistral, weights, tmp_path):
    folder, values = mistral
    (folder / "params.json").write_text(json.dumps(values))

    llamakit.reshard(folder, tmp_path / "out", 2)

    assert_holds(folder, "meta", weights)
    assert_holds(tmp_path / "out", "meta", weights)
    assert "hidden_dim" not in (tmp_path / "out" / "params.json").read_text()


@pytest.mark.parametrize(
    ("key", "value"),
    [("sliding_window", 4096), ("head_dim", 8), ("moe", {"num_experts": 8}), ("yarn", {})],
)
def test_a_mistral_that_is_no_llama_is_refused_by_name(mistral, key, value):
    folder, values = mistral
    (folder / "params.json").write_text(json.dumps(values | {key: value}))

    with pytest.raises(UnsupportedModelError, match=f"'{key}' is "):
        llamakit.open_checkpoint(folder)
