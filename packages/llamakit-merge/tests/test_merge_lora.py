"""Adapters that PEFT wrote, merged; the answers are those of the model that PEFT merged."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from llamakit_merge.api import merge_lora as merge
from llamakit_merge.commands import merge_lora
from safetensors.numpy import load_file, save_file

import llamakit
from llamakit.demo import path

DATA = Path(__file__).parent / "data"
EXPECTED = json.loads((DATA / "expected.json").read_text("utf-8"))
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def base():
    return llamakit.open_checkpoint(path())


@pytest.fixture
def adapter(tmp_path):
    """A copy of an adapter that a test may damage."""
    return shutil.copytree(DATA / "linear", tmp_path / "adapter")


def change_config(adapter, **values):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), "utf-8")


@pytest.mark.parametrize("name", ["linear", "output"])
def test_the_merged_model_answers_as_the_one_that_peft_merged(base, tmp_path, name):
    llamakit.reshard(merge(base, DATA / name), tmp_path / "merged", 2, dtype="float32")

    model = llamakit.Llama.open(tmp_path / "merged")
    tokens, logprobs = model.generate(
        [EXPECTED["prompt"]], max_gen_len=16, temperature=0, logprobs=True
    )

    expected = EXPECTED["answers"][name]
    assert tokens == [expected["tokens"]]
    # The merged weights are float16 at first, PEFT's are float32.
    np.testing.assert_allclose(logprobs[0], expected["logprobs"], atol=0.02)


def test_a_matrix_is_the_sum_that_the_paper_says(base):
    merged = merge(base, DATA / "output")  # rsLoRA: alpha 4 over the root of rank 2
    tensors = load_file(DATA / "output" / WEIGHTS)
    a, b = (tensors[f"base_model.model.lm_head.lora_{it}.weight"].astype(np.float32) for it in "AB")

    expected = base.read("output.weight").astype(np.float32) + 4 / 2**0.5 * b @ a

    np.testing.assert_array_equal(merged.read("output.weight"), expected.astype(np.float16))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_slice_of_the_sum_is_the_sum_of_slices(base, axis):
    merged = merge(base, DATA / "linear")
    name = "layers.1.attention.wq.weight"
    whole = merged.read(name)

    part = merged.read(name, axis=axis, start=5, stop=71)

    np.testing.assert_allclose(part, whole.take(range(5, 71), axis), atol=1e-6, rtol=1e-3)


def test_what_the_adapter_does_not_change_keeps_its_bytes(base):
    merged = merge(base, DATA / "output")

    assert set(merged.changed) == {
        "output.weight",
        *(f"layers.{it}.attention.wq.weight" for it in range(4)),
    }
    for name in set(merged.parameters) - set(merged.changed):
        assert merged.read(name).tobytes() == base.read(name).tobytes()


def test_the_command_writes_a_checkpoint_and_refuses_to_overwrite_it(tmp_path):
    words = [str(path()), str(DATA / "linear"), str(tmp_path / "out")]

    done = CliRunner().invoke(merge_lora, words)
    again = CliRunner().invoke(merge_lora, words)

    assert done.exit_code == 0, done.output
    assert "changed: 28\nparameters: 39\n" in done.output
    assert llamakit.verify(tmp_path / "out", deep=True).good
    assert "exists already" in str(again.exception)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trainable_token_indices": [1]}, "'trainable_token_indices' is"),
        ({"modules_to_save": "lm_head"}, "'modules_to_save' is 'lm_head'"),
        ({"alpha_pattern": {"(a+)+b": 3}}, r"has the pattern '\(a\+\)\+b', which is not read"),
        ({"alpha_pattern": {"(a": 3}}, r"has the pattern '\(a', which is not read"),
        ({"alpha_pattern": {"q_proj": "x"}}, "'q_proj' is 'x', no number"),
        ({"init_lora_weights": "pissa_niter_16"}, "'init_lora_weights' is 'pissa_niter_16'"),
        ({"some_new_config": {"x": 1}}, "'some_new_config' is"),
        ({"peft_type": "IA3"}, "'peft_type' is 'IA3'"),
        ({"lora_alpha": "much"}, "is not the config of a LoRA adapter"),
    ],
)
def test_other_kinds_of_adapter_are_refused_by_name(base, adapter, values, message):
    change_config(adapter, **values)

    with pytest.raises(llamakit.LlamakitError, match=message):
        merge(base, adapter)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"r": 16}, "_proj have rank 2, and the adapter_config.json next to it says 16"),
        ({"rank_pattern": {"up_proj": 5}}, "up_proj have rank 2, .* says 5"),
        ({"r": None}, "'r' is None, no number"),
        ({"rank_pattern": {"(a+)+b": 3}}, r"'rank_pattern' has the pattern '\(a\+\)\+b'"),
    ],
)
def test_a_config_of_factors_of_another_rank_is_refused(base, adapter, values, message):
    change_config(adapter, **values)

    with pytest.raises(llamakit.LlamakitError, match=message):
        merge(base, adapter)


def test_a_folder_that_is_no_adapter_is_refused(base, tmp_path):
    with pytest.raises(llamakit.LlamakitError, match="expected the folder that PEFT saved"):
        merge(base, tmp_path)


def test_damaged_weights_are_refused(base, adapter):
    file = adapter / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(llamakit.LlamakitError, match=r"is not a complete \.safetensors"):
        merge(base, adapter)


def test_a_matrix_without_its_other_half_is_refused(base, adapter):
    tensors = load_file(adapter / WEIGHTS)
    tensors.pop("base_model.model.model.layers.2.mlp.up_proj.lora_B.weight")
    save_file(tensors, adapter / WEIGHTS)

    with pytest.raises(llamakit.LlamakitError, match=r"layers\.2\.mlp\.up_proj do not make a pair"):
        merge(base, adapter)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("model.layers.0.self_attn.q_proj.lora_B.bias", "is a bias, and Meta's format has none"),
        ("model.layers.0.mlp.gate_proj.bias", "is a bias, and Meta's format has none"),
        ("model.layers.0.mlp.router.lora_A.weight", "is no tensor of a LoRA of a Llama's layers"),
        ("model.embed_tokens.token_adapter.trainable_tokens_delta", "is no tensor of a LoRA"),
    ],
)
def test_what_is_not_merged_is_refused_by_name(base, adapter, name, reason):
    tensors = load_file(adapter / WEIGHTS)
    save_file(tensors | {f"base_model.model.{name}": np.ones(4, np.float32)}, adapter / WEIGHTS)

    with pytest.raises(llamakit.LlamakitError, match=f"{re.escape(name)}' {reason}"):
        merge(base, adapter)


def test_an_adapter_of_another_model_is_refused(base, adapter):
    tensors = load_file(adapter / WEIGHTS)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file(tensors | {name: tensors[name][:, :128].copy()}, adapter / WEIGHTS)

    with pytest.raises(llamakit.LlamakitError, match="was trained on another model"):
        merge(base, adapter)
