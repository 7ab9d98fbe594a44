"""Edits: what is not changed keeps its bytes, and what cannot be is refused in one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest

from llamakit.api import Edits, edit, export, inspect, open_checkpoint, plan_edit
from llamakit.checkpoint.layout import expected_parameters
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.provenance_reader import read_steps
from llamakit.checkpoint.rope_scaling import scaling_of
from llamakit.errors import OptionError, ParametersError, UnsupportedModelError, UsageError

PARAMS = {"dim": 16, "n_layers": 3, "n_heads": 4, "vocab_size": 32, "multiple_of": 8}
PARAMS |= {"norm_eps": 1e-5, "max_seq_len": 64}
EMBEDDINGS = ("tok_embeddings.weight", "output.weight")


@pytest.fixture(params=["meta", "huggingface"])
def source(request, make_meta, tmp_path):
    folder = make_meta(tmp_path / "source", PARAMS, 4, dtype="float32")
    if request.param == "huggingface":
        export(folder, tmp_path / "hf")
        return tmp_path / "hf"
    return folder


@pytest.fixture
def meta(make_meta, tmp_path):
    return make_meta(tmp_path / "source", PARAMS, 4, dtype="float32")


def values(folder):
    checkpoint = open_checkpoint(folder)
    return {name: np.array(checkpoint.read(name)) for name in checkpoint.parameters}


def numbers(folder):
    return json.loads((folder / "params.json").read_text())


def test_dtypes_are_cast_by_pattern_and_the_last_that_matches_counts(source, tmp_path):
    casts = {"layers.*.attention.*": "float16", "*.wo.weight": "bfloat16", "*norm*": "float16"}
    edit(source, tmp_path / "out", Edits(dtype=casts), 2)

    old, new = values(source), values(tmp_path / "out")
    assert {name: str(it.dtype) for name, it in new.items()} == {
        name: "bfloat16"
        if name.endswith("wo.weight")
        else "float16"
        if "attention" in name or "norm" in name
        else "float32"
        for name in old
    }
    assert all((new[name] == old[name].astype(new[name].dtype)).all() for name in old)
    assert inspect(tmp_path / "out").good


@pytest.mark.parametrize("size", [None, 1, 4])
def test_layers_that_are_left_out_close_their_gap(source, tmp_path, size):
    report = edit(source, tmp_path / "out", Edits(drop=("layers.1.*",)), size)

    old, new = values(source), values(tmp_path / "out")
    expected = {name: it for name, it in old.items() if not name.startswith("layers.1.")}
    expected = {name.replace("layers.2.", "layers.1."): it for name, it in expected.items()}
    assert {name: it.tobytes() for name, it in new.items()} == {
        name: it.tobytes() for name, it in expected.items()
    }
    assert numbers(tmp_path / "out")["n_layers"] == 2
    assert report["notes"] == ["layers 0, 2 are kept, and called 0 to 1"]
    assert inspect(tmp_path / "out").good


def test_the_other_numbers_of_params_json_stay(meta, tmp_path):
    edit(meta, tmp_path / "fewer", Edits(drop=("layers.{1..2}.*",)))
    edit(meta, tmp_path / "cast", Edits(dtype="float16"))

    assert numbers(tmp_path / "fewer") == numbers(meta) | {"n_layers": 1}
    assert (tmp_path / "cast" / "params.json").read_bytes() == (meta / "params.json").read_bytes()


def test_names_are_renamed_with_what_their_wildcards_match(source, tmp_path):
    renames = {
        "layers.{0..1}.ffn_norm.weight": "layers.*.attention_norm.weight",
        "layers.[01].attention_norm.weight": "layers.*.ffn_norm.weight",
        "layers.2.attention.wq.weight": "layers.2.attention.wv.weight",
        "layers.2.attention.wv.weight": "layers.2.attention.wq.weight",
    }
    edit(source, tmp_path / "out", Edits(rename=renames), 2)

    old, new = values(source), values(tmp_path / "out")
    for layer in ("0", "1"):
        for one, other in (("ffn_norm", "attention_norm"), ("attention_norm", "ffn_norm")):
            assert (
                new[f"layers.{layer}.{one}.weight"] == old[f"layers.{layer}.{other}.weight"]
            ).all()
    for one, other in (("wq", "wv"), ("wv", "wq")):  # one is permuted in Hugging Face's format
        new_name, old_name = (f"layers.2.attention.{it}.weight" for it in (one, other))
        assert (new[new_name] == old[old_name]).all()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("init", ["mean", "zero", "normal:0.02:7"])
def test_a_vocabulary_grows_with_rows_as_they_are_asked_for(make_meta, tmp_path, axis, init):
    source = make_meta(tmp_path / "source", PARAMS, 2, axis=axis, dtype="float32")
    edits = Edits(vocab_size=33, pad_vocab_to_multiple=8, init=init)
    report = edit(source, tmp_path / "out", edits, 4)

    old, new = values(source), values(tmp_path / "out")
    assert numbers(tmp_path / "out")["vocab_size"] == 40
    for name in EMBEDDINGS:
        assert (new[name][:32] == old[name]).all()
        added = new[name][32:]
        if init == "mean":
            assert np.allclose(added, old[name].mean(axis=0), atol=1e-6)
        elif init == "zero":
            assert not added.any()
        else:
            assert 0.01 < added.std() < 0.03
            assert len({row.tobytes() for row in added}) == 8
    assert new["norm.weight"].tobytes() == old["norm.weight"].tobytes()
    assert f"had 32 rows and get 40; the new ones are made by {init}" in report["notes"][0]
    assert "no tokenizer was found" in report["notes"][1]


def test_the_same_seed_gives_the_same_rows_whatever_the_number_of_shards(source, tmp_path):
    edits = Edits(pad_vocab_to_multiple=48, init="normal:1:1")
    for size in (1, 4):
        edit(source, tmp_path / str(size), edits, size)

    one, four = values(tmp_path / "1"), values(tmp_path / "4")
    assert all(one[name].tobytes() == four[name].tobytes() for name in one)
    assert (one[EMBEDDINGS[0]][32:] != one[EMBEDDINGS[1]][32:]).any()


def test_a_vocabulary_is_cut_off_at_its_end(source, tmp_path):
    edit(source, tmp_path / "out", Edits(vocab_size=24))

    old, new = values(source), values(tmp_path / "out")
    assert all((new[name] == old[name][:24]).all() for name in EMBEDDINGS)


@pytest.mark.parametrize("size", [1, 2])
def test_tied_embeddings_get_the_same_rows_and_stay_one(reference_tied, tmp_path, size):
    edits = Edits(pad_vocab_to_multiple=48, init="normal:1:1", dtype={"tok_*": "float16"})
    edit(reference_tied, tmp_path / "out", edits, size)

    new = open_checkpoint(tmp_path / "out")
    embedding, output = (new.read(name) for name in EMBEDDINGS)
    assert new.params.tied_embeddings
    assert (embedding == output).all()
    assert embedding.dtype == output.dtype == np.float16


@pytest.fixture
def reference_tied(meta, tmp_path):
    """A Hugging Face folder that has the embedding as its output layer."""
    edit(meta, tmp_path / "same", Edits(dtype="float32"), 1)
    export(tmp_path / "same", tmp_path / "tied", max_shard_size="1MB")
    folder = tmp_path / "tied"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    return folder


class Shapes:
    """A checkpoint of which only the index is asked for."""

    form, nbytes_read = "shapes", 0

    def __init__(self, path, params):
        self.path, self.params = path, params
        self.parameters = expected_parameters(params, 0)

    def read(self, name, *, axis=0, start=0, stop=None):
        raise NotImplementedError


def test_the_scaling_that_the_number_of_layers_implies_is_kept(tmp_path):
    shape = {"dim": 2048, "n_layers": 16, "n_heads": 32, "n_kv_heads": 8, "hidden_dim": 8192}
    params = ModelParams(**shape, vocab_size=128256, rope_theta=5e5, use_scaled_rope=True)
    llama32 = Shapes(tmp_path, params)
    assert scaling_of(params, tmp_path).factor == 32

    plan = plan_edit(llama32, tmp_path / "out", Edits(drop=("layers.{8..15}.*",)))

    edited = plan.checkpoint.params
    assert (edited.n_layers, scaling_of(edited, tmp_path).factor) == (8, 32)
    (written,) = (it.content for it in plan.small_files if it.name == "params.json")
    assert json.loads(written)["rope_scaling_factor"] == 32


def test_a_part_is_written_only_when_that_is_asked_for(source, tmp_path):
    edits = Edits(keep=("layers.2.*", "norm.weight"), drop=("*.wo.weight",))
    with pytest.raises(
        ParametersError, match=r"no complete model. missing: tok_embeddings.*partial"
    ):
        plan_edit(source, tmp_path / "out", edits)

    report = edit(source, tmp_path / "out", Edits(edits.keep, edits.drop, partial=True), 2)
    plan = plan_edit(source, tmp_path / "again", Edits(edits.keep, edits.drop, partial=True), 2)

    assert "no complete model" in report["notes"][0]
    assert {move.name for move in plan.moves} == {
        name
        for name in values(source)
        if name == "norm.weight" or (name.startswith("layers.2.") and "wo" not in name)
    }


def test_what_was_asked_for_is_recorded(source, tmp_path):
    edits = Edits(drop=("layers.0.*",), dtype="float16", pad_vocab_to_multiple=64)
    edit(source, tmp_path / "out", edits)

    *_, step = read_steps(tmp_path / "out")
    assert step.command == "edit"
    assert {key: it for key, it in step.options.items() if key != "model_parallel_size"} == {
        "drop": ["layers.0.*"],
        "dtype": ["*=float16"],
        "pad_vocab_to_multiple": 64,
        "init": "mean",
    }
    assert step.sources[0].name == source.name


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (Edits(drop=("nothing*",)), "--drop 'nothing*' matches no parameter"),
        (Edits(keep=("Norm.weight",)), "--keep 'Norm.weight' matches no parameter"),
        (Edits(dtype={"layers.3.*": "float16"}), "--dtype 'layers.3.*' matches no parameter"),
        (Edits(rename={"x": "y"}), "--rename 'x' matches no parameter"),
        (Edits(keep=("norm.*",), drop=("*",)), "no parameter is left"),
        (Edits(rename={"layers.0.*": "layers.1.*"}), "would both be called layers.1."),
        (Edits(rename={"layers.*.ffn_norm.weight": "norm.weight"}), "1 wildcards and the new name"),
        (Edits(rename={"norm.weight": "a*"}), "0 wildcards and the new name 1"),
        (Edits(rename={"norm.*": "a.*", "norm.w*": "b.*"}), "norm.weight is renamed twice"),
        (Edits(drop=("layers.{2..1}.*",)), "the smaller number first"),
        (Edits(drop=("layers.{0..99999}.*",)), "at most 4096 numbers"),
        (Edits(drop=("layers.[z-a].*",)), "is no pattern"),
        (Edits(drop=("layers.[[&&||~~!--]x.*",)), "matches no parameter"),
        (Edits(dtype="int8"), "not cast to 'int8'"),
        (Edits(vocab_size=30), "do not divide by 4 shards; pass --pad-vocab-to-multiple 4"),
        (Edits(vocab_size=0), "at least one token"),
        (Edits(pad_vocab_to_multiple=0), "at least one token"),
        (Edits(vocab_size=1 << 30), "too large"),
        (Edits(vocab_size=40, init="normal:0:1"), "expected mean, zero, or normal"),
        (Edits(vocab_size=40, init="normal:1e999:1"), "expected mean, zero, or normal"),
        (Edits(vocab_size=40, init="normal:1e300:1"), "with an STD up to 1000"),
        (Edits(vocab_size=40, init="\x1b[2J"), "expected mean, zero, or normal"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(meta, tmp_path, edits, message):
    with pytest.raises(OptionError) as refused:
        plan_edit(meta, tmp_path / "out", edits)

    assert message in refused.value.for_commands
    assert refused.value.for_commands.isprintable()


def test_parameters_of_another_shape_are_named(meta, tmp_path):
    renames = {
        "layers.0.attention.wq.weight": "layers.0.feed_forward.w1.weight",
        "layers.0.feed_forward.w1.weight": "layers.0.attention.wq.weight",
    }

    with pytest.raises(ParametersError, match=r"of another shape: layers.0.*expected"):
        plan_edit(meta, tmp_path / "out", Edits(rename=renames))


def test_an_edit_that_changes_nothing_is_a_usage_error(meta, tmp_path):
    with pytest.raises(UsageError, match="nothing is to change"):
        plan_edit(meta, tmp_path / "out", Edits())


def test_layers_of_llama_4_stay(reference_cases_llama3, tmp_path):
    case = reference_cases_llama3 / "llama4-moe-mp2"

    with pytest.raises(UnsupportedModelError, match="depends on their numbers"):
        plan_edit(case, tmp_path / "out", Edits(drop=("layers.0.*",)))


def test_a_vocabulary_is_not_cut_below_the_tokenizers(reference_cases_llama3, tmp_path):
    case = reference_cases_llama3 / "llama31-mp8"

    with pytest.raises(OptionError, match="the tokenizer has 1280"):
        plan_edit(case, tmp_path / "out", Edits(vocab_size=1272))
    with pytest.raises(OptionError, match="would be taken for a Llama 4"):
        plan_edit(case, tmp_path / "out", Edits(vocab_size=1024 + 2048))
    plan = plan_edit(case, tmp_path / "out", Edits(vocab_size=1288))
    assert "the tokenizer has 1280 tokens and stays as it is" in plan.notes[1]


def test_the_command_plans_edits_and_prints_what_it_decided(meta, tmp_path, run_llamakit):
    words = ["edit", meta, tmp_path / "out", "-n", "2", "--drop", "layers.0.*"]
    words += ["--dtype", "float16", "--dtype", "*norm.weight=float32", "--rename", "norm.*=norm.*"]

    planned = run_llamakit(*words, "--plan", "--json")
    done = run_llamakit(*words)
    refused = run_llamakit(*words[:3], "--rename", "nonsense")

    assert planned.returncode == done.returncode == 0, planned.stderr + done.stderr
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert {it["name"]: it["nbytes"] for it in json.loads(planned.stdout)["files"]} == sizes
    assert json.loads(planned.stdout)["notes"] == ["layers 1-2 are kept, and called 0 to 1"]
    assert "layers 1-2 are kept" in done.stdout
    assert refused.returncode == 2
    assert "is not OLD=NEW" in refused.stderr
