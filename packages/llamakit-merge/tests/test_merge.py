"""Merges, against what mergekit made of the same models (see data/make_merges.py)."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from adapters import write_adapter
from llamakit_merge.api import MergeMethod, ParameterSpec, merge, merge_lora
from merges import MERGES, written
from small_models import check_described, huggingface_rows, write_model

import llamakit
from llamakit.checkpoint.hf_names import to_huggingface, to_meta
from llamakit.demo import path

EXPECTED = json.loads((Path(__file__).parent / "data" / "merges.json").read_text("utf-8"))
ROUNDING = {"float32": 2e-6, "bfloat16": 2**-7, "float16": 2**-10}


@pytest.mark.parametrize("name", MERGES)
def test_a_merge_is_the_one_that_mergekit_makes(models, name):
    values, _ = written(MERGES[name], models(MERGES[name].get("dtypes", "float32")))

    merged = merge(values)

    assert sorted(map(to_huggingface, merged.parameters)) == sorted(EXPECTED[name])
    for theirs, expected in EXPECTED[name].items():
        values = huggingface_rows(merged, to_meta(theirs))
        check_described(values, expected, rtol=ROUNDING[expected["dtype"]], atol=1e-7)


def linear(*names, **changes):
    models = [{"model": name, "parameters": {"weight": 1}} for name in names]
    return {"merge_method": "linear", "models": models} | changes


@pytest.fixture
def folder(models, monkeypatch):
    """The working directory, with the models base, one and two in it."""
    monkeypatch.chdir(models())
    return models()


def test_bfloat16_ties_keeps_as_many_values_as_mergekit_would(models, monkeypatch):
    monkeypatch.chdir(models("bfloat16"))
    one = {"model": "one", "parameters": {"weight": 1, "density": 0.3}}
    values = {"merge_method": "ties", "base_model": "base", "models": [one]}
    name = "layers.2.feed_forward.w1.weight"
    base, other = (llamakit.open_checkpoint(it).read(name) for it in ("base", "one"))

    changed = merge(values).read(name) != base

    magnitudes = np.abs(other.astype(np.float32) - base.astype(np.float32)).astype(base.dtype)
    smallest = np.sort(magnitudes.ravel())[-int(0.3 * magnitudes.size)]
    assert changed.sum() == int(0.3 * magnitudes.size)
    assert changed[magnitudes > smallest].all()
    assert not changed[magnitudes < smallest].any()


@pytest.mark.parametrize("name", ["ties", "slerp"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_slice_of_a_merge_is_the_merge_of_slices(models, monkeypatch, name, axis):
    monkeypatch.setattr("llamakit_merge.block_checkpoint.BLOCK_VALUES", 100)
    merged = merge(written(MERGES[name], models())[0])
    whole = merged.read("layers.1.feed_forward.w2.weight")

    part = merged.read("layers.1.feed_forward.w2.weight", axis=axis, start=3, stop=27)

    np.testing.assert_array_equal(part, whole.take(range(3, 27), axis))


@pytest.mark.usefixtures("folder")
def test_models_of_several_formats_and_numbers_of_shards_are_merged(tmp_path):
    expected = merge(linear("one", "two"))
    llamakit.reshard("one", tmp_path / "shards", 2)

    mixed = merge(linear(str(tmp_path / "shards"), "two"))
    llamakit.reshard(mixed, tmp_path / "meta", 2)
    llamakit.export(mixed, tmp_path / "hf")

    assert llamakit.diff(expected, tmp_path / "meta").same
    assert llamakit.diff(expected, tmp_path / "hf").same
    assert llamakit.verify(tmp_path / "meta", deep=True).good


def test_a_stack_of_layers_is_a_model_of_as_many(models, tmp_path):
    merged = merge(written(MERGES["passthrough"], models())[0])

    llamakit.reshard(merged, tmp_path / "out", 2)

    assert llamakit.open_checkpoint(tmp_path / "out").params.n_layers == 6
    assert llamakit.diff(merged, tmp_path / "out").same


@pytest.mark.usefixtures("folder")
def test_a_model_may_come_with_an_adapter(tmp_path):
    adapter = write_adapter(tmp_path / "adapter", "rslora")
    with_adapter = merge_lora("base", adapter).read("output.weight")

    merged = merge(linear(f"base+{adapter}", "base"))

    mean = (with_adapter + llamakit.open_checkpoint("base").read("output.weight")) / 2
    np.testing.assert_allclose(merged.read("output.weight"), mean, rtol=1e-6)


def largest(group):
    """Merge by the value of the largest magnitude: a method of somebody else's, in three lines."""
    share = group.shared["share"]
    return lambda _row, blocks: share * max(blocks, key=lambda block: np.abs(block).sum())


@pytest.mark.usefixtures("folder")
def test_another_merge_method_is_a_few_lines():
    method = MergeMethod("largest", largest, (ParameterSpec("share", float, default=0.5),))
    values = linear("one", "two", merge_method="largest", parameters={"share": 2})
    for model in values["models"]:
        del model["parameters"]

    merged = merge(values, methods={"largest": method}).read("norm.weight")

    both = [llamakit.open_checkpoint(it).read("norm.weight") for it in ("one", "two")]
    np.testing.assert_array_equal(merged, 2 * max(both, key=lambda it: np.abs(it).sum()))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab": 96}, r"is \(96, 32\) in .*other and tok_embeddings.weight is \(80, 32\) in one"),
        ({"layers": 5}, "other has 5 layers and one has 4; models of as many"),
        ({"tied": True}, "the embeddings are not tied in one and tied in .*other"),
        ({"rope_theta": 500000.0}, r"rope_theta is 10000.0 in one and 500000.0 in .*other"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2}}, "the RoPE scaling is none in one"),
        ({"num_attention_heads": 2, "num_key_value_heads": 1}, "attention heads is 4 in one and 2"),
    ],
)
def test_models_that_do_not_fit_are_refused_in_one_sentence(tmp_path, changes, message):
    write_model(tmp_path / "other", 1, **changes)

    with pytest.raises(llamakit.LlamakitError, match=message):
        merge(linear("one", str(tmp_path / "other")))


SLICE = {"sources": [{"model": "one", "layer_range": [0, 9]}]}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (linear("one", merge_method="dare_ties"), "merge_method is 'dare_ties', which is not"),
        (linear("one", merge_method=None), "merge_method is None; expected a name"),
        (linear("one", chat_template="auto"), "'chat_template', which is not read .the base model"),
        (linear("one", color=1), "has the key 'color', which is not read; known are merge_method"),
        (linear("one", models=None), "it has to have one of models and slices"),
        (linear("one", slices=[SLICE]), "it has to have one of models and slices"),
        (linear("one", parameters={"t": 1}), "parameters has 't', which linear does not have"),
        (linear("one", parameters={"normalize": 3}), "'normalize' is 3; expected true or false"),
        (linear("one", dtype="int8"), "dtype is 'int8'; expected one of float32"),
        (linear("one", "one"), "the merge has the model one twice"),
        (linear("one", "nowhere"), r"models\[1\] names the model 'nowhere', and nothing is there"),
        (linear("one", merge_method="ties"), "ties needs a base_model, and none is given"),
        (linear("one", merge_method="slerp", base_model="one"), "slerp merges 2 models"),
        (linear("one", base_model="two"), "'weight' has no value for model.embed_tokens.weight"),
        ({"merge_method": "passthrough", "slices": [SLICE]}, r"is \[0, 9\], and one has 4 layers"),
        ({"merge_method": "linear", "slices": [{"sources": []}]}, r"slices\[0\].sources is \[\]"),
        (linear("one", tokenizer={"source": "base", "tokens": {}}), "each row of the embedding"),
    ],
)
def test_a_wrong_merge_is_refused_by_the_name_of_the_key(values, message):
    with pytest.raises(llamakit.LlamakitError, match=message):
        merge(values)


@pytest.mark.usefixtures("folder")
def test_weights_that_add_up_to_nothing_have_no_mean():
    values = linear("one", "two")
    values["models"][0]["parameters"]["weight"] = -1

    with pytest.raises(llamakit.LlamakitError, match="the weights add up to 0"):
        merge(values).read("norm.weight")


def test_the_tokenizer_of_another_vocabulary_is_refused_where_rows_would_move(tmp_path):
    for name, pieces in (("a", "model"), ("b", "other")):
        write_model(tmp_path / name, 1, vocab=1600)
        shutil.copy(path().parent / "tokenizer.model", tmp_path / name)
        if pieces == "other":
            file = tmp_path / name / "tokenizer.model"
            file.write_bytes(file.read_bytes().replace(b"\xe2\x96\x81the", b"\xe2\x96\x81xhe", 1))
    values = linear(str(tmp_path / "a"), str(tmp_path / "b"))

    with pytest.raises(llamakit.LlamakitError, match=r"differ: token .* is another in each"):
        merge(values | {"tokenizer_source": "union"})

    assert merge(values | {"tokenizer_source": None}).params.vocab_size == 1600


def test_tied_models_stay_tied(tmp_path):
    for seed, name in enumerate(("a", "b")):
        write_model(tmp_path / name, seed, tied=True)

    llamakit.export(merge(linear(str(tmp_path / "a"), str(tmp_path / "b"))), tmp_path / "out")

    back = llamakit.open_checkpoint(tmp_path / "out")
    assert back.params.tied_embeddings
    assert "output.weight" not in back.parameters


def test_mergekits_long_form_of_a_model_is_read(models, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", "rslora")
    model = {"lora": {"path": str(adapter)}, "model": {"path": str(models() / "base")}}
    part = {"model": model, "parameters": {"weight": 1}}

    merged = merge({"merge_method": "linear", "models": [part]}).read("output.weight")

    expected = merge_lora(models() / "base", adapter).read("output.weight")
    np.testing.assert_array_equal(merged, expected)
