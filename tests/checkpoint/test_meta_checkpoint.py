import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lazy_torch import torch
from pth_files import save_pth, to_torch

from llamakit.checkpoint.layout import check_parameters
from llamakit.checkpoint.meta_checkpoint import open_meta
from llamakit.checkpoint.shard_plan import slice_for_rank, valid_sizes
from llamakit.errors import (
    DamagedFileError,
    MissingShardError,
    ParametersError,
    ParamsError,
    UnevenSplitError,
)
from llamakit.protocols import Checkpoint

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

WQ = "layers.0.attention.wq.weight"
WK = "layers.1.attention.wk.weight"
WO = "layers.0.attention.wo.weight"
EMBEDDING = "tok_embeddings.weight"


@pytest.fixture
def opened_mp8(mha_mp8):
    return open_meta(mha_mp8)


def assert_holds(checkpoint, weights):
    assert checkpoint.parameters.keys() == weights.keys()
    for name, tensor in weights.items():
        assert checkpoint.parameters[name].shape == tuple(tensor.shape), name
        assert np.array_equal(checkpoint.read(name), np.asarray(tensor)), name


@pytest.mark.parametrize("case", ["mha_mp8", "gqa_mp1"])
def test_a_reference_case_is_what_torch_reads(case, request, whole_reference):
    folder = request.getfixturevalue(case)

    checkpoint = open_meta(folder)

    check_parameters(checkpoint)
    assert isinstance(checkpoint, Checkpoint)
    assert_holds(checkpoint, whole_reference(folder))


def test_the_index_of_a_reference_case_says_what_it_is(mha_mp8):
    checkpoint = open_meta(mha_mp8)

    assert (checkpoint.form, checkpoint.path, len(checkpoint.shards)) == ("meta", mha_mp8, 8)
    assert (checkpoint.embedding_axis, checkpoint.generation) == (1, "llama 1/2")
    assert checkpoint.params.vocab_size == 576
    assert list(checkpoint.parameters)[:2] == [EMBEDDING, "layers.0.attention.wq.weight"]
    assert checkpoint.nbytes_read == 0


@relaxed
@given(data=st.data())
def test_any_slice_of_a_reference_case_is_that_of_the_whole(data, opened_mp8, whole_reference):
    whole = whole_reference(opened_mp8.path)
    before = opened_mp8.nbytes_read
    name = data.draw(st.sampled_from(sorted(whole)))
    axis = data.draw(st.integers(0, whole[name].ndim - 1))
    start = data.draw(st.integers(0, whole[name].shape[axis]))
    stop = data.draw(st.integers(start, whole[name].shape[axis]))

    array = opened_mp8.read(name, axis=axis, start=start, stop=stop)

    assert np.array_equal(array, whole[name].narrow(axis, start, stop - start).numpy())
    assert opened_mp8.nbytes_read == before + array.nbytes


@pytest.mark.parametrize("embedding_axis", [0, 1])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_any_number_of_shards_holds_the_same_model(
    tmp_path, params, weights, write_meta, size, embedding_axis
):
    theta = {"rope_theta": 500000.0} if embedding_axis == 0 else {}
    folder = write_meta(tmp_path, params | theta, weights, size, embedding_axis)

    checkpoint = open_meta(folder)

    check_parameters(checkpoint)
    assert checkpoint.embedding_axis == embedding_axis
    assert_holds(checkpoint, weights)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_what_a_rank_reads_is_what_its_shard_would_hold(
    tmp_path, params, weights, write_meta, size
):
    source = open_meta(write_meta(tmp_path / "2", params, weights, 2))
    shards = open_meta(write_meta(tmp_path / "n", params, weights, size)).shards
    for rank in range(size):
        for name, parameter in source.parameters.items():
            where = slice_for_rank(parameter, source.params, rank, size)

            array = source.read(name, axis=where.axis, start=where.start, stop=where.stop)

            assert np.array_equal(array, shards[rank].array(name))


def test_bytes_are_counted_as_they_are_returned(gqa_mp1):
    checkpoint = open_meta(gqa_mp1)

    checkpoint.read(WQ, start=8, stop=24)
    checkpoint.read("norm.weight")

    assert checkpoint.nbytes_read == 16 * 64 * 2 + 64 * 2


def test_bytes_are_counted_right_from_many_threads(mha_mp8):
    checkpoint = open_meta(mha_mp8)

    with ThreadPoolExecutor(8) as pool:
        arrays = list(pool.map(checkpoint.read, list(checkpoint.parameters) * 8))

    assert checkpoint.nbytes_read == sum(array.nbytes for array in arrays)


def test_what_lies_in_one_shard_is_a_view_of_the_file(mha_mp8, as_torch):
    checkpoint = open_meta(mha_mp8)

    within = checkpoint.read(WQ, start=8, stop=16)
    across = checkpoint.read(WQ, start=7, stop=16)

    assert not within.flags.owndata
    assert across.flags.owndata
    assert torch.equal(as_torch(within), as_torch(across)[1:])


def test_bfloat16_is_put_together_from_shards(tmp_path, params, weights, write_meta, as_torch):
    weights = {name: tensor.astype("bfloat16") for name, tensor in weights.items()}
    checkpoint = open_meta(write_meta(tmp_path, params, weights, 2))

    array = checkpoint.read(WO)

    assert array.dtype == ml_dtypes.bfloat16
    assert checkpoint.parameters[WO].dtype == "bfloat16"
    assert array.tobytes() == weights[WO].tobytes()


def test_an_unknown_parameter_is_a_key_error(gqa_mp1):
    with pytest.raises(KeyError):
        open_meta(gqa_mp1).read("layers.9.attention.wq.weight")


@pytest.mark.parametrize(("axis", "start", "stop"), [(2, 0, 1), (-1, 0, 1), (0, 0, 65), (0, 2, 1)])
def test_a_slice_that_is_not_there_is_a_value_error(gqa_mp1, axis, start, stop):
    with pytest.raises(ValueError, match="has no"):
        open_meta(gqa_mp1).read(WQ, axis=axis, start=start, stop=stop)


def twelve_shards(folder, write_meta, width):
    params = {"dim": 24, "n_layers": 1, "n_heads": 12, "multiple_of": 12, "norm_eps": 1e-5}
    weights = {
        "tok_embeddings.weight": np.arange(12 * 24, dtype="float32").reshape(12, 24),
        "layers.0.attention.wq.weight": np.arange(24 * 24, dtype="float32").reshape(24, 24),
        "output.weight": np.arange(12 * 24, dtype="float32").reshape(12, 24),
    }
    write_meta(folder, params, weights, 12)
    for rank in range(12):
        shard = folder / f"consolidated.{rank:02d}.pth"
        shard.rename(folder / f"consolidated.{rank:0{width}d}.pth")
    return weights


@pytest.mark.parametrize("width", [1, 2, 3])
def test_twelve_shards_are_put_in_the_order_of_their_numbers(tmp_path, write_meta, width):
    weights = twelve_shards(tmp_path, write_meta, width)

    checkpoint = open_meta(tmp_path)

    assert len(checkpoint.shards) == 12
    assert all(np.array_equal(checkpoint.read(name), weights[name]) for name in weights)


def test_a_gap_is_named(tmp_path, write_meta):
    twelve_shards(tmp_path, write_meta, 2)
    (tmp_path / "consolidated.03.pth").unlink()

    with pytest.raises(
        MissingShardError, match=r"has 11 shards, .* missing are consolidated.03.pth"
    ):
        open_meta(tmp_path)


def test_shards_missing_at_the_end_are_noticed_by_how_the_rest_is_cut(tmp_path, write_meta):
    twelve_shards(tmp_path, write_meta, 2)
    (tmp_path / "consolidated.11.pth").unlink()

    with pytest.raises(MissingShardError, match="has 11 shards, each split as one of 12"):
        open_meta(tmp_path)


def test_a_number_that_is_there_twice_is_refused(tmp_path, write_meta):
    twelve_shards(tmp_path, write_meta, 2)
    shutil.copy(tmp_path / "consolidated.03.pth", tmp_path / "consolidated.3.pth")

    with pytest.raises(MissingShardError, match="several shards of number 3"):
        open_meta(tmp_path)


def test_a_number_beyond_reason_is_a_gap(tmp_path, write_meta):
    twelve_shards(tmp_path, write_meta, 2)
    (tmp_path / "consolidated.11.pth").rename(tmp_path / "consolidated.999999999.pth")

    with pytest.raises(
        MissingShardError,
        match=r"missing are consolidated\.11\.pth, consolidated\.12\.pth, .* and 9981 more",
    ):
        open_meta(tmp_path)


def test_a_single_shard_without_a_number_is_a_shard(tmp_path, params, weights, write_meta):
    write_meta(tmp_path, params, weights)
    (tmp_path / "consolidated.00.pth").rename(tmp_path / "consolidated.pth")

    assert_holds(open_meta(tmp_path), weights)


def test_a_shard_of_another_model_is_named(tmp_path, params, weights, write_meta):
    write_meta(tmp_path, params, weights, 4)
    shard = tmp_path / "consolidated.02.pth"
    tensors = torch.load(shard)
    torch.save(tensors | {WQ: tensors[WQ].float()}, shard)

    with pytest.raises(ParametersError) as caught:
        open_meta(tmp_path)

    message = str(caught.value)
    assert f"{shard} is of another model than consolidated.00.pth: {WQ} is float32" in message


def test_the_odd_shard_is_named_even_if_it_is_the_first(tmp_path, params, weights, write_meta):
    write_meta(tmp_path, params, weights, 4)
    shard = tmp_path / "consolidated.00.pth"
    tensors = torch.load(shard)
    del tensors["norm.weight"]
    torch.save(tensors, shard)

    with pytest.raises(
        ParametersError, match=r"consolidated\.00\.pth is .* norm\.weight is absent"
    ):
        open_meta(tmp_path)


def test_shards_of_two_models_of_one_shape_differ_in_their_norms(
    tmp_path, params, weights, write_meta
):
    write_meta(tmp_path, params, weights, 4)
    assert not faults(open_meta(tmp_path))
    shard = tmp_path / "consolidated.02.pth"
    tensors = torch.load(shard)
    torch.save(tensors | {"norm.weight": tensors["norm.weight"] + 1}, shard)

    (fault,) = faults(open_meta(tmp_path))
    assert "consolidated.02.pth: norm.weight differs" in fault


def faults(checkpoint):
    return [it.sentence for it in checkpoint.deep_checks() if it.kind == "fault"]


def test_swapped_shards_are_named_in_a_warning(tmp_path, params, weights, write_meta, caplog):
    write_meta(tmp_path, params, weights, 2)
    first, second = tmp_path / "consolidated.00.pth", tmp_path / "consolidated.01.pth"
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)

    with caplog.at_level(logging.WARNING, "llamakit"):
        open_meta(tmp_path)

    assert caplog.messages[0].startswith(f"{first} was written as consolidated.01.pth")


def test_a_damaged_shard_is_named(tmp_path, params, weights, write_meta):
    write_meta(tmp_path, params, weights, 2)
    (tmp_path / "consolidated.01.pth").write_text("<html><title>404</title></html>")

    with pytest.raises(DamagedFileError, match=r"consolidated\.01\.pth is an HTML page"):
        open_meta(tmp_path)


def test_params_of_another_model_are_refused_by_name(tmp_path, params, weights, write_meta):
    write_meta(tmp_path, params | {"dim": 32, "n_layers": 1}, weights, 2)

    with pytest.raises(ParametersError, match=r"do not fit params\.json") as caught:
        check_parameters(open_meta(tmp_path))

    assert "not of this model: layers.1.attention.wq.weight" in str(caught.value)
    assert "params.json implies (32, 32)" in str(caught.value)


def test_a_vocabulary_that_the_shards_do_not_have_is_refused(tmp_path, params, weights, write_meta):
    write_meta(tmp_path, params | {"vocab_size": 32000}, weights, 2)

    with pytest.raises(ParametersError, match=r"implies \(32000, 16\)"):
        check_parameters(open_meta(tmp_path))


@pytest.mark.parametrize("shape", [(), (4,), (2, 2, 2), (0, 16)])
def test_parameters_of_odd_shapes_are_named_not_stumbled_over(
    tmp_path, params, weights, write_meta, shape
):
    odd = {name: np.zeros(shape, "float32") for name in (EMBEDDING, WQ, WK)}
    write_meta(tmp_path, params, weights, 1)
    save_pth(weights | odd, tmp_path / "consolidated.00.pth")

    checkpoint = open_meta(tmp_path)

    assert checkpoint.read(WQ).shape == shape
    with pytest.raises(ParametersError):
        check_parameters(checkpoint)


def test_a_folder_in_another_format_is_left_to_others(tmp_path):
    assert open_meta(tmp_path) is None
    assert open_meta(tmp_path / "absent") is None
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "params.json").write_text("{}")
    assert open_meta(tmp_path) is None


def test_shards_without_params_are_refused(tmp_path, params, weights, write_meta):
    write_meta(tmp_path, params, weights)
    (tmp_path / "params.json").unlink()

    with pytest.raises(ParamsError, match="does not exist"):
        open_meta(tmp_path)


def test_params_without_shards_are_refused(tmp_path, params):
    (tmp_path / "params.json").write_text(json.dumps(params))

    with pytest.raises(MissingShardError, match=r"has params\.json but no shard"):
        open_meta(tmp_path)


def test_llama_3_is_known_by_its_tokenizer(tmp_path, params, weights, write_meta):
    folder = write_meta(tmp_path / "model", params, weights)
    assert open_meta(folder).generation == "llama 1/2"
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")

    checkpoint = open_meta(folder)

    assert (checkpoint.embedding_axis, checkpoint.generation) == (0, "llama 3")


def test_code_llama_is_known_by_its_rotations(tmp_path, params, weights, write_meta):
    folder = write_meta(tmp_path, params | {"rope_theta": 1000000}, weights)

    assert open_meta(folder).generation == "code llama"


def test_a_tied_model_needs_no_output_layer(tmp_path, params, weights, write_meta):
    del weights["output.weight"]
    folder = write_meta(tmp_path, params | {"use_scaled_rope": True}, weights)

    checkpoint = open_meta(folder)

    check_parameters(checkpoint)
    assert checkpoint.params.tied_embeddings
    assert checkpoint.params.vocab_size == 24


def test_an_output_layer_that_is_the_embedding_is_tied(tmp_path, params, weights, write_meta):
    write_meta(tmp_path, params, weights)
    tensors = {name: to_torch(array) for name, array in weights.items()}
    tensors["output.weight"] = tensors[EMBEDDING]
    torch.save(tensors, tmp_path / "consolidated.00.pth")

    checkpoint = open_meta(tmp_path)

    check_parameters(checkpoint)
    assert checkpoint.params.tied_embeddings


def test_an_older_model_without_an_output_layer_is_refused(tmp_path, params, weights, write_meta):
    del weights["output.weight"]

    checkpoint = open_meta(write_meta(tmp_path, params, weights, 2))

    with pytest.raises(ParametersError, match=r"missing: output\.weight"):
        check_parameters(checkpoint)


def test_sizes_of_a_reference_case(mha_mp8, gqa_mp1):
    assert valid_sizes(open_meta(mha_mp8).params) == [1, 2, 4, 8]
    assert valid_sizes(open_meta(gqa_mp1).params) == [1, 2, 4, 8]
    with pytest.raises(UnevenSplitError):
        slice_for_rank(
            replace(open_meta(gqa_mp1).parameters[WQ], shape=(63, 64)),
            open_meta(gqa_mp1).params,
            0,
            2,
        )
