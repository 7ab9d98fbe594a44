from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llamakit.checkpoint.layout import expected_parameters
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.shard_plan import (
    Piece,
    Slice,
    check_size,
    pieces,
    slice_for_rank,
    valid_sizes,
)
from llamakit.errors import UnevenSplitError
from llamakit.protocols import Parameter

LLAMA_2_70B = ModelParams(
    dim=8192, n_layers=80, n_heads=64, n_kv_heads=8, vocab_size=32000, hidden_dim=28672
)
SMALL = ModelParams(dim=48, n_layers=1, n_heads=12, n_kv_heads=4, vocab_size=24, hidden_dim=96)


@st.composite
def models(draw):
    """Small models, of which some can be cut into few sizes only."""
    n_kv_heads = draw(st.integers(1, 6))
    n_heads = n_kv_heads * draw(st.integers(1, 4))
    return ModelParams(
        dim=n_heads * 2,
        n_layers=1,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        vocab_size=n_heads * draw(st.integers(1, 3)),
        hidden_dim=n_heads * draw(st.integers(1, 3)),
    )


def valid_size(params):
    return st.sampled_from(valid_sizes(params))


def test_the_sizes_of_70b_are_those_that_its_heads_allow():
    assert valid_sizes(LLAMA_2_70B) == [1, 2, 4, 8, 16, 32, 64]


def test_key_value_heads_are_divided_or_repeated_evenly():
    assert valid_sizes(SMALL) == [1, 2, 4, 12]


def test_a_size_that_does_not_fit_is_refused_with_every_reason():
    with pytest.raises(UnevenSplitError) as caught:
        check_size(replace(LLAMA_2_70B, hidden_dim=28670), 3)

    message = str(caught.value)
    assert "64 attention heads do not divide by 3" in message
    assert "28670 feed-forward rows do not divide by 3" in message
    assert "32000 vocabulary entries do not divide by 3" in message
    assert "3 neither divides 8 key/value heads nor is a multiple of them" in message
    assert "Sizes that fit: 1, 2" in message


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_one_is_refused(size):
    with pytest.raises(UnevenSplitError, match="at least 1"):
        check_size(SMALL, size)


def test_two_key_heads_on_four_ranks_are_repeated_on_neighbours():
    params = replace(SMALL, n_heads=4, n_kv_heads=2, dim=16)
    keys = expected_parameters(params, 1)["layers.0.attention.wk.weight"]

    slices = [slice_for_rank(keys, params, rank, 4) for rank in range(4)]

    assert slices == [Slice(0, 0, 4), Slice(0, 0, 4), Slice(0, 4, 8), Slice(0, 4, 8)]


def test_copies_are_dropped_on_the_way_back():
    params = replace(SMALL, n_heads=4, n_kv_heads=2, dim=16)
    keys = expected_parameters(params, 1)["layers.0.attention.wk.weight"]

    assert pieces(keys, params, 4, 0, 8) == [Piece(0, 0, 4), Piece(2, 0, 4)]


def test_every_rank_holds_a_norm_whole():
    norm = expected_parameters(SMALL, 1)["norm.weight"]

    assert slice_for_rank(norm, SMALL, 3, 4) == Slice(0, 0, 48)
    assert pieces(norm, SMALL, 4, 8, 20) == [Piece(0, 8, 20)]


def test_an_axis_that_does_not_divide_is_refused():
    odd = Parameter("output.weight", (25, 48), "float16", 0)

    with pytest.raises(UnevenSplitError, match="cannot split 25 along axis 0 into 4"):
        slice_for_rank(odd, SMALL, 0, 4)


@given(st.data())
def test_the_slices_of_all_ranks_cover_each_parameter_exactly(data):
    params = data.draw(models())
    size = data.draw(valid_size(params))
    for parameter in expected_parameters(params, data.draw(st.sampled_from([0, 1]))).values():
        slices = [slice_for_rank(parameter, params, rank, size) for rank in range(size)]

        distinct = list(dict.fromkeys(slices))
        length = parameter.shape[parameter.axis or 0]
        edges = [0, *(part.stop for part in distinct)]
        assert [part.start for part in distinct] == edges[:-1]
        assert edges[-1] == length


@given(st.data())
def test_any_slice_is_made_of_the_right_rows_of_the_right_shards(data):
    params = data.draw(models())
    size = data.draw(valid_size(params))
    parameter = data.draw(st.sampled_from(list(expected_parameters(params, 1).values())))
    length = parameter.shape[parameter.axis or 0]
    start = data.draw(st.integers(0, length))
    stop = data.draw(st.integers(start, length))
    whole = np.arange(length)
    shards = [
        whole[part.start : part.stop]
        for part in (slice_for_rank(parameter, params, rank, size) for rank in range(size))
    ]

    made = [shards[p.shard][p.start : p.stop] for p in pieces(parameter, params, size, start, stop)]

    assert all(len(rows) for rows in made)
    assert np.array_equal(np.concatenate([*made, whole[:0]]), whole[start:stop])


@given(st.data())
def test_from_one_size_to_another_and_back_is_the_same(data):
    params = data.draw(models())
    old, new = data.draw(valid_size(params)), data.draw(valid_size(params))
    assume(old != new)
    for parameter in expected_parameters(params, 1).values():
        length = parameter.shape[parameter.axis or 0]
        first = cut([np.arange(length)], 1, parameter, params, old)

        back = cut(cut(first, old, parameter, params, new), new, parameter, params, old)

        assert all(map(np.array_equal, first, back))


def cut(shards, old, parameter, params, new):
    return [
        np.concatenate(
            [
                shards[p.shard][p.start : p.stop]
                for p in pieces(parameter, params, old, wanted.start, wanted.stop)
            ]
        )
        for wanted in (slice_for_rank(parameter, params, rank, new) for rank in range(new))
    ]
