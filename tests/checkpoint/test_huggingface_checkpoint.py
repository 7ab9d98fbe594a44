import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lazy_torch import torch
from safetensors.numpy import save_file

from llamakit.checkpoint.hf_checkpoint import open_huggingface
from llamakit.checkpoint.hf_names import to_huggingface, to_meta
from llamakit.checkpoint.layout import check_parameters, expected_shapes
from llamakit.checkpoint.meta_checkpoint import open_meta
from llamakit.checkpoint.rope_permutation import huggingface_rows, permute_rotary, unpermute_rotary
from llamakit.errors import (
    DamagedFileError,
    MissingShardError,
    ParametersError,
    ParamsError,
    UnsupportedModelError,
)
from llamakit.protocols import Checkpoint

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

WQ = "layers.0.attention.wq.weight"
WK = "layers.0.attention.wk.weight"
NAMES = {  # as Meta -> Hugging Face, spelled out apart from llamakit
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "tok_embeddings": "model.embed_tokens",
    "output": "lm_head",
}
CONFIG = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 24,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "max_position_embeddings": 4096,
}


def huggingface_name(name):
    for ours, theirs in NAMES.items():
        name = name.replace(f"{ours}.weight", f"{theirs}.weight")
    return name if name.startswith(("model.", "lm_head")) else f"model.{name}"


def permuted(name, w):
    if name.split(".")[-2] not in ("wq", "wk"):
        return w
    n = 4 if "wq" in name else 2
    d1, dim = w.shape
    return w.reshape(n, d1 // n // 2, 2, dim).swapaxes(1, 2).reshape(d1, dim)


def converted(weights):
    return {huggingface_name(name): permuted(name, w) for name, w in weights.items()}


@pytest.fixture
def write_folder(tmp_path, weights):
    def write(config=None, extra=None, files=1):
        folder = tmp_path / "hf"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(CONFIG | (config or {})))
        tensors = converted(weights) | (extra or {})
        if files == 1:
            save_file(tensors, folder / "model.safetensors", {"format": "pt"})
            return folder
        places = {}
        for number in range(files):
            name = f"model-{number + 1:05d}-of-{files:05d}.safetensors"
            part = {key: tensors[key] for key in sorted(tensors)[number::files]}
            save_file(part, folder / name)
            places |= dict.fromkeys(part, name)
        write_index(folder, places)
        return folder

    return write


def write_index(folder, places):
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("files", [1, 3])
def test_a_folder_reads_as_the_meta_checkpoint_it_was_made_from(
    write_folder, tmp_path, params, weights, write_meta, files
):
    meta = open_meta(write_meta(tmp_path / "meta", params, weights, 2))

    checkpoint = open_huggingface(write_folder(files=files))

    check_parameters(checkpoint)
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.parameters == meta.parameters
    assert list(checkpoint.parameters) == list(meta.parameters)
    assert all(np.array_equal(checkpoint.read(n), meta.read(n)) for n in meta.parameters)
    assert checkpoint.nbytes_read == meta.nbytes_read


@relaxed
@given(data=st.data())
def test_any_slice_is_that_of_the_whole(data, write_folder, weights):
    checkpoint = open_huggingface(write_folder())
    name = data.draw(st.sampled_from([WQ, WK, "layers.1.feed_forward.w2.weight"]))
    axis = data.draw(st.integers(0, 1))
    start = data.draw(st.integers(0, weights[name].shape[axis]))
    stop = data.draw(st.integers(start, weights[name].shape[axis]))

    array = checkpoint.read(name, axis=axis, start=start, stop=stop)

    assert np.array_equal(array, weights[name].take(range(start, stop), axis))
    assert checkpoint.nbytes_read == array.nbytes


@pytest.mark.parametrize(("axis", "start", "stop"), [(2, 0, 1), (-1, 0, 1), (0, 0, 17), (1, 2, 1)])
@pytest.mark.parametrize("name", [WQ, "layers.0.attention.wo.weight"])
def test_a_slice_that_is_not_there_is_a_value_error(write_folder, name, axis, start, stop):
    with pytest.raises(ValueError, match=r"no slice|no axis"):
        open_huggingface(write_folder()).read(name, axis=axis, start=start, stop=stop)


def test_an_unknown_parameter_is_a_key_error(write_folder):
    with pytest.raises(KeyError):
        open_huggingface(write_folder()).read("model.norm.weight")


@relaxed
@given(heads=st.integers(1, 5), half=st.integers(1, 4), columns=st.integers(0, 3))
def test_the_permutation_goes_there_and_back(heads, half, columns):
    weight = np.arange(heads * half * 2 * columns).reshape(heads * half * 2, columns)

    assert np.array_equal(unpermute_rotary(permute_rotary(weight, heads), heads), weight)


@relaxed
@given(heads=st.integers(1, 5), half=st.integers(1, 4))
def test_the_permutation_is_that_of_torch_and_of_single_rows(heads, half):
    rows = heads * half * 2
    weight = torch.arange(rows).view(rows, 1)

    theirs = weight.view(heads, half, 2, 1).transpose(1, 2).reshape(rows, 1).numpy()

    assert np.array_equal(permute_rotary(weight.numpy(), heads), theirs)
    assert np.array_equal(theirs[huggingface_rows(0, rows, half * 2)], weight.numpy())


def test_the_permutation_can_be_done_shard_by_shard():
    weight = np.arange(32).reshape(16, 2)

    halves = [permute_rotary(half, 2) for half in np.split(weight, 2)]

    assert np.array_equal(np.concatenate(halves), permute_rotary(weight, 4))


def test_names_go_there_and_back(write_folder):
    names = list(expected_shapes(open_huggingface(write_folder()).params))

    assert [to_huggingface(name) for name in names] == [huggingface_name(name) for name in names]
    assert [to_meta(to_huggingface(name)) for name in names] == names


@pytest.mark.parametrize("name", ["rope.freqs", "layers.0.attention.wx.weight", "norm", ""])
def test_a_name_that_the_other_format_has_not_is_none(name):
    assert to_huggingface(name) is None
    assert to_meta(name) is None


def test_the_numbers_are_those_of_the_config(write_folder):
    params = open_huggingface(write_folder()).params

    assert (params.dim, params.n_layers, params.n_heads, params.n_kv_heads) == (16, 2, 4, 2)
    assert (params.vocab_size, params.hidden_dim, params.norm_eps) == (24, 48, 1e-5)
    assert (params.rope_theta, params.rope_scaling, params.context) == (10000.0, None, 4096)


@pytest.mark.parametrize(
    "config",
    [
        {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 500000.0}},
        {
            "rope_parameters": None,
            "rope_theta": 500000.0,
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
        },
    ],
)
def test_both_spellings_of_the_rotary_settings_are_read(write_folder, config):
    checkpoint = open_huggingface(write_folder(config))

    assert checkpoint.params.rope_theta == 500000.0
    assert checkpoint.params.use_scaled_rope
    assert checkpoint.params.rope_scaling["factor"] == 8.0
    assert checkpoint.params.family == "llama 3"
    assert checkpoint.parameters["tok_embeddings.weight"].axis == 0


def test_another_scaling_is_kept_for_who_computes(write_folder):
    scaling = {"type": "linear", "factor": 4.0}

    params = open_huggingface(
        write_folder({"rope_parameters": None, "rope_scaling": scaling})
    ).params

    assert not params.use_scaled_rope
    assert params.rope_scaling == scaling


def test_an_output_layer_that_equals_the_embedding_is_not_read(write_folder, weights):
    extra = {"lm_head.weight": weights["tok_embeddings.weight"]}

    checkpoint = open_huggingface(write_folder({"tie_word_embeddings": True}, extra))

    check_parameters(checkpoint)
    assert "output.weight" not in checkpoint.parameters
    assert checkpoint.params.tied_embeddings


def test_an_output_layer_that_differs_is_used_although_the_config_says_tied(
    write_folder, weights, caplog
):
    checkpoint = open_huggingface(write_folder({"tie_word_embeddings": True}))

    check_parameters(checkpoint)
    assert not checkpoint.params.tied_embeddings
    assert np.array_equal(checkpoint.read("output.weight"), weights["output.weight"])
    assert "lm_head.weight differs from the embedding: lm_head.weight is used" in caplog.text


def test_tables_of_rotations_are_ignored(write_folder):
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(2, "float32")}

    check_parameters(open_huggingface(write_folder(extra=extra)))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "mistral"}, "'model_type' is 'mistral'; expected 'llama'"),
        ({"model_type": None}, "'model_type' is None"),
        ({"hidden_act": "gelu"}, "'hidden_act' is 'gelu'"),
        ({"attention_bias": True}, "'attention_bias' is True"),
        ({"head_dim": 8}, "'head_dim' is 8"),
    ],
)
def test_another_model_is_refused(write_folder, config, said):
    with pytest.raises(UnsupportedModelError) as caught:
        open_huggingface(write_folder(config))

    assert said in str(caught.value)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": "16"},
        {"num_attention_heads": 3},
        {"rope_parameters": 7},
        {"vocab_size": None},
    ],
)
def test_a_wrong_config_is_refused(write_folder, config):
    with pytest.raises(ParamsError, match=r"config\.json"):
        open_huggingface(write_folder(config))


def test_biases_are_refused(write_folder):
    extra = {"model.layers.0.self_attn.q_proj.bias": np.zeros(16, "float32")}

    with pytest.raises(
        UnsupportedModelError, match=r"the bias model\.layers\.0\.self_attn\.q_proj"
    ):
        open_huggingface(write_folder(extra=extra))


@pytest.mark.parametrize("name", ["model.layers.0.mlp.lora_A.weight", "norm.weight"])
def test_tensors_that_no_llama_has_are_named(write_folder, name):
    with pytest.raises(ParametersError, match=f"tensors that no Llama has: {name}"):
        open_huggingface(write_folder(extra={name: np.zeros(2, "float32")}))


@pytest.mark.parametrize("tied", [True, False])
def test_what_automodel_saves_without_its_prefix_is_read_if_the_output_is_the_embedding(
    write_folder, weights, tied
):
    folder = write_folder({"tie_word_embeddings": tied})
    tensors = {name.removeprefix("model."): it for name, it in converted(weights).items()}
    tensors.pop("lm_head.weight", None)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    if not tied:
        with pytest.raises(
            ParametersError, match=r"without its output layer.*AutoModelForCausalLM"
        ):
            open_huggingface(folder)
        return
    checkpoint = open_huggingface(folder)

    assert set(checkpoint.parameters) == set(weights) - {"output.weight"}
    for name in checkpoint.parameters:
        assert checkpoint.read(name).tobytes() == weights[name].tobytes()


def test_a_projection_that_is_not_of_whole_heads_is_named(write_folder):
    extra = {"model.layers.0.self_attn.q_proj.weight": np.zeros((15, 16), "float32")}

    with pytest.raises(ParametersError, match=r"q_proj\.weight is \(15, 16\)"):
        open_huggingface(write_folder(extra=extra))


def test_weights_of_another_model_are_refused(write_folder):
    checkpoint = open_huggingface(write_folder({"intermediate_size": 64}))

    with pytest.raises(ParametersError, match=r"do not fit config\.json"):
        check_parameters(checkpoint)


def test_missing_files_are_named(write_folder):
    folder = write_folder(files=3)
    (folder / "model-00002-of-00003.safetensors").unlink()

    with pytest.raises(
        MissingShardError, match=r"lacks model-00002-of-00003\.safetensors of the 3"
    ):
        open_huggingface(folder)


def test_an_index_that_names_a_tensor_its_file_has_not_is_refused(write_folder):
    folder = write_folder(files=2)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    write_index(folder, index | {"lm_head.extra": "model-00001-of-00002.safetensors"})

    with pytest.raises(DamagedFileError, match=r"has no lm_head\.extra"):
        open_huggingface(folder)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", 3, "x.bin"])
def test_an_index_that_points_elsewhere_is_refused(write_folder, name):
    folder = write_folder(files=2)
    write_index(folder, {"lm_head.weight": name})

    with pytest.raises(DamagedFileError, match=r"expected the name of a \.safetensors beside it"):
        open_huggingface(folder)


def test_an_empty_index_is_refused(write_folder):
    folder = write_folder(files=2)
    write_index(folder, {})

    with pytest.raises(MissingShardError, match="lacks every file"):
        open_huggingface(folder)


def test_a_config_without_weights_is_refused(write_folder):
    folder = write_folder()
    (folder / "model.safetensors").unlink()

    with pytest.raises(MissingShardError, match=r"has config\.json but no weights"):
        open_huggingface(folder)


def test_a_folder_in_another_format_is_left_to_others(tmp_path, params, weights, write_meta):
    assert open_huggingface(tmp_path) is None
    assert open_huggingface(tmp_path / "absent") is None
    write_meta(tmp_path, params, weights)
    (tmp_path / "config.json").write_text("{}")
    assert open_huggingface(tmp_path) is None
