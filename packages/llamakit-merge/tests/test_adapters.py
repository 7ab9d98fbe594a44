"""Each kind of adapter, against what PEFT makes of it (see data/make_adapters.py)."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from adapters import ADAPTERS, tensors_of, write_adapter
from llamakit_merge.api import merge_lora
from small_models import HEADS, check_described, huggingface_rows, write_model

import llamakit
from llamakit.checkpoint.hf_names import to_meta

EXPECTED = json.loads((Path(__file__).parent / "data" / "adapters.json").read_text("utf-8"))
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return llamakit.open_checkpoint(write_model(tmp_path_factory.mktemp("base") / "model", 0))


@pytest.mark.parametrize("names", EXPECTED)
def test_the_merged_tensors_are_those_that_peft_makes(model, tmp_path, names):
    folders = [write_adapter(tmp_path / name, name) for name in names.split("+")]

    merged = merge_lora(model, *folders)

    assert sorted(merged.changed) == sorted(map(to_meta, EXPECTED[names]))
    for theirs, expected in EXPECTED[names].items():
        check_described(huggingface_rows(merged, to_meta(theirs)), expected, **CLOSE)


def test_weights_say_how_much_each_adapter_counts(model, tmp_path):
    folders = [write_adapter(tmp_path / name, name) for name in ("rslora", "patterns")]
    name = "output.weight"
    full = merge_lora(model, folders[0]).read(name) - model.read(name)

    merged = merge_lora(model, *folders, weights=[0.25, 0])

    np.testing.assert_allclose(merged.read(name), model.read(name) + 0.25 * full, rtol=1e-5)
    assert "layers.0.attention.wq.weight" in merged.changed


def save_with_torch(path, tensors):
    import torch

    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, path)


def test_a_bin_file_is_read_as_the_safetensors_is(model, tmp_path):
    folder = write_adapter(tmp_path / "adapter", "dora")
    expected = merge_lora(model, folder).read("layers.1.attention.wq.weight")

    (folder / "adapter_model.safetensors").unlink()
    save_with_torch(folder / "adapter_model.bin", tensors_of(ADAPTERS["dora"]))

    found = merge_lora(model, folder).read("layers.1.attention.wq.weight")
    np.testing.assert_array_equal(found, expected)


def test_nothing_in_a_bin_file_is_unpickled(model, tmp_path):
    folder = write_adapter(tmp_path / "adapter", "dora")
    (folder / "adapter_model.safetensors").unlink()
    made = tmp_path / "made"
    data = b"cos\nsystem\n(S'touch " + str(made).encode() + b"'\ntR."
    with zipfile.ZipFile(folder / "adapter_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")

    with pytest.raises(llamakit.LlamakitError, match=r"os\.system"):
        merge_lora(model, folder)

    assert not made.exists()


TUNE = {
    "base_model.model.model.": "",
    "self_attn.o_proj": "attn.output_proj",
    "self_attn": "attn",
    "gate_proj": "w1",
    "lora_magnitude_vector": "magnitude",
    "lora_A": "lora_a",
    "lora_B": "lora_b",
}


def torchtune_tensors(config):
    """Return an adapter's tensors as torchtune names them, its rows in Meta's order."""
    tensors = {}
    for name, tensor in tensors_of(config).items():
        theirs = re.sub("|".join(map(re.escape, TUNE)), lambda match: TUNE[match[0]], name)
        is_turned = "q_proj" in name and "lora_A" not in name
        halves = tensor.reshape(HEADS, 2, len(tensor) // HEADS // 2, -1) if is_turned else tensor
        turned = halves.swapaxes(1, 2).reshape(tensor.shape) if is_turned else tensor
        tensors[theirs] = np.ascontiguousarray(turned)
    return tensors


@pytest.mark.parametrize("has_config", [True, False])
def test_torchtunes_own_file_is_the_same_adapter(model, tmp_path, has_config):
    folder = write_adapter(tmp_path / "adapter", "dora")
    merged = merge_lora(model, folder)
    expected = {name: merged.read(name) for name in merged.changed}
    (folder / "adapter_model.safetensors").unlink()
    for epoch in (0, 1):
        tensors = torchtune_tensors(ADAPTERS["dora"])
        values = {name: value * epoch for name, value in tensors.items()}  # the last one counts
        save_with_torch(folder / f"adapter_{epoch}.pt", values)
    if not has_config:
        (folder / "adapter_config.json").unlink()

    found = merge_lora(model, folder, alpha=None if has_config else 4)

    for name, values in expected.items():
        np.testing.assert_array_equal(found.read(name), values)


def test_an_adapter_without_config_needs_an_alpha(model, tmp_path):
    folder = write_adapter(tmp_path / "adapter", "dora")
    (folder / "adapter_config.json").unlink()

    with pytest.raises(llamakit.LlamakitError, match="is not the config of a LoRA adapter"):
        merge_lora(model, folder)


@pytest.mark.parametrize("kind", ["rslora", "embedding"])
def test_a_tied_model_is_not_tied_afterwards_where_one_side_was_trained(tmp_path, kind):
    write_model(tmp_path / "tied", 0, tied=True)
    tied = llamakit.open_checkpoint(tmp_path / "tied")
    embedding = tied.read("tok_embeddings.weight")
    folder = write_adapter(tmp_path / "adapter", kind)

    merged = merge_lora(tied, folder)
    llamakit.export(merged, tmp_path / "out")

    back = llamakit.open_checkpoint(tmp_path / "out")
    untouched = "tok_embeddings.weight" if kind == "rslora" else "output.weight"
    touched = "output.weight" if kind == "rslora" else "tok_embeddings.weight"
    assert not back.params.tied_embeddings
    np.testing.assert_array_equal(back.read(untouched), embedding)
    assert not np.array_equal(back.read(touched), embedding)


def test_a_tied_model_stays_so_where_the_adapter_leaves_both_alone(tmp_path):
    write_model(tmp_path / "tied", 0, tied=True)

    merged = merge_lora(tmp_path / "tied", write_adapter(tmp_path / "adapter", "dora"))

    assert merged.params.tied_embeddings
    assert "output.weight" not in merged.parameters


def test_a_whole_module_cannot_count_for_a_part(model, tmp_path):
    folder = write_adapter(tmp_path / "adapter", "whole")

    with pytest.raises(llamakit.LlamakitError, match=r"as a whole, and a share of 0\.5 is none"):
        merge_lora(model, folder, weights=[0.5])
    with pytest.raises(llamakit.LlamakitError, match="as a whole, and another brings it too"):
        merge_lora(model, folder, shutil.copytree(folder, tmp_path / "again"))


def test_as_many_weights_as_adapters_are_needed(model, tmp_path):
    folder = write_adapter(tmp_path / "adapter", "dora")

    with pytest.raises(llamakit.LlamakitError, match="2 weights are given for 1 adapters"):
        merge_lora(model, folder, weights=[1, 2])
