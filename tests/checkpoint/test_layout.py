from dataclasses import replace
from types import SimpleNamespace

import pytest

from llamakit.checkpoint.layout import (
    axis_of,
    check_parameters,
    expected_parameters,
    expected_shapes,
)
from llamakit.checkpoint.params import ModelParams
from llamakit.errors import ParametersError
from llamakit.protocols import Parameter

PARAMS = ModelParams(
    dim=16, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=24, hidden_dim=48, multiple_of=8
)


def checkpoint(parameters, params=PARAMS, form="meta"):
    return SimpleNamespace(path="MODEL", params=params, form=form, parameters=parameters)


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        ("layers.0.attention.wq.weight", 0),
        ("layers.10.attention.wk.weight", 0),
        ("layers.0.attention.wv.weight", 0),
        ("layers.0.feed_forward.w1.weight", 0),
        ("layers.0.feed_forward.w3.weight", 0),
        ("output.weight", 0),
        ("layers.0.attention.wo.weight", 1),
        ("layers.0.feed_forward.w2.weight", 1),
        ("norm.weight", None),
        ("layers.0.attention_norm.weight", None),
        ("layers.0.ffn_norm.weight", None),
        ("rope.freqs", None),
    ],
)
def test_each_parameter_is_split_on_its_axis(name, axis):
    assert axis_of(name, 1) == axis


@pytest.mark.parametrize("axis", [0, 1])
def test_the_embedding_is_split_as_its_generation_has_it(axis):
    assert axis_of("tok_embeddings.weight", axis) == axis


def test_parameters_are_in_the_order_of_the_model():
    names = list(expected_shapes(PARAMS))

    assert names[:2] == ["tok_embeddings.weight", "layers.0.attention.wq.weight"]
    assert names[-2:] == ["norm.weight", "output.weight"]
    assert len(names) == 3 + 2 * 9


def test_a_tied_model_has_no_output_layer_of_its_own():
    assert "output.weight" not in expected_shapes(replace(PARAMS, tied_embeddings=True))


def test_a_model_with_all_its_parameters_passes():
    parameters = expected_parameters(PARAMS, 1)

    check_parameters(checkpoint(parameters))


def test_a_table_of_rotations_passes():
    parameters = expected_parameters(PARAMS, 1)
    parameters["rope.freqs"] = Parameter("rope.freqs", (2,), "float32", None)

    check_parameters(checkpoint(parameters))


def test_a_tied_model_passes_with_and_without_an_output_layer():
    tied = replace(PARAMS, tied_embeddings=True)

    check_parameters(checkpoint(expected_parameters(tied, 0), tied))
    check_parameters(checkpoint(expected_parameters(PARAMS, 0), tied))


def test_every_missing_extra_and_misshapen_parameter_is_named():
    parameters = expected_parameters(PARAMS, 1)
    del parameters["norm.weight"]
    parameters["lora.a"] = Parameter("lora.a", (4, 4), "float16", None)
    wide = parameters["output.weight"]
    parameters["output.weight"] = replace(wide, shape=(25, 16))

    with pytest.raises(ParametersError) as caught:
        check_parameters(checkpoint(parameters))

    message = str(caught.value)
    assert "missing: norm.weight;" in message
    assert "not of this model: lora.a;" in message
    assert "output.weight is (25, 16), params.json implies (24, 16)" in message


def test_a_long_list_is_shortened_after_eight():
    with pytest.raises(ParametersError, match=r"layers\.0\.feed_forward\.w3\.weight and 13 more"):
        check_parameters(checkpoint({}))


def test_the_file_of_the_format_is_named():
    with pytest.raises(ParametersError, match=r"do not fit config\.json"):
        check_parameters(checkpoint({}, form="huggingface"))
