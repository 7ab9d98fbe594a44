"""diff: whole parameters are compared, whatever the form and the number of shards."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lazy_torch import torch
from tools_kit import PARAMS, change_shard, random_model, write_model

from llamakit import diff, export, reshard
from llamakit.examine import diff as diff_module

NAMES = list(random_model())


def only(report):
    (found,) = report.differing
    return found


@pytest.fixture
def pair(tmp_path):
    """Write two models of one origin, the second changed."""

    def pair(change, dtype="float16", sizes=(1, 1)):
        weights = {name: tensor.astype(dtype) for name, tensor in random_model().items()}
        a = write_model(tmp_path / "a", weights, sizes[0])
        changed = {name: tensor.copy() for name, tensor in weights.items()}
        change(changed)
        return a, write_model(tmp_path / "b", changed, sizes[1])

    return pair


def test_a_checkpoint_is_the_same_as_itself_in_any_format(reference_cases, tmp_path):
    source = reference_cases / "mha-mp8"
    reshard(source, tmp_path / "two", 2)
    export(source, tmp_path / "hf")

    assert diff(source, tmp_path / "two").same
    assert diff(tmp_path / "two", tmp_path / "hf").same
    assert any("rope.freqs" in note for note in diff(source, tmp_path / "hf").notes)


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.permutations(NAMES),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 99),
)
def test_order_and_number_of_shards_do_not_matter(tmp_path_factory, order, one, other, seed):
    root, weights = tmp_path_factory.mktemp("diff"), random_model(seed)
    a = write_model(root / "a", weights, one)
    b = write_model(root / "b", weights, other, order=order)

    assert diff(a, b).same


@settings(max_examples=40)
@given(st.data())
def test_one_changed_value_is_found_where_it_is(tmp_path_factory, data):
    root, weights = tmp_path_factory.mktemp("diff"), random_model()
    name = data.draw(st.sampled_from(NAMES))
    index = tuple(data.draw(st.integers(0, length - 1)) for length in weights[name].shape)
    a = write_model(root / "a", weights, data.draw(st.sampled_from([1, 2, 4])))
    before = float(weights[name][index])
    weights[name][index] += 1
    after = float(weights[name][index])
    b = write_model(root / "b", weights, data.draw(st.sampled_from([1, 2, 4])))

    found = only(diff(a, b))

    assert (found.name, found.kind, found.values) == (name, "values", 1)
    assert found.first == found.worst == index
    assert found.first_values == (before, after)
    assert found.max_abs == pytest.approx(abs(after - before))
    assert found.max_rel == pytest.approx(abs(after - before) / max(abs(before), abs(after)))


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_places_are_those_of_the_whole_parameter(pair, monkeypatch, chunk):
    monkeypatch.setattr(diff_module, "_CHUNK_VALUES", chunk)
    name = "output.weight"

    def change(weights):
        weights[name][5, 3] += 1
        weights[name][20, 11] += 8
        weights[name][23, 0] += 2

    found = only(diff(*pair(change, "float32")))

    assert (found.first, found.worst, found.values) == ((5, 3), (20, 11), 3)
    assert found.max_abs == pytest.approx(8, rel=1e-5)


def test_minus_zero_differs_in_bytes_and_not_in_value(pair):
    def change(weights):
        weights["norm.weight"][:4] = [1.0, -0.0, 0.0, 0.0]

    a, b = pair(change)
    change_shard(
        a / "consolidated.00.pth",
        lambda tensors: tensors["norm.weight"][:4].copy_(torch.tensor([1.0, 0.0, 0.0, 0.0])),
    )

    found = only(diff(a, b))

    assert (found.kind, found.bits, found.values, found.first) == ("bytes", 1, 0, (1,))
    assert not diff(a, b).same


def test_nan_equals_nan_and_nothing_else(pair):
    nan = float("nan")

    def change(weights):
        weights["norm.weight"][:3] = [nan, nan, 5.0]

    a, b = pair(change)
    change_shard(
        a / "consolidated.00.pth",
        lambda tensors: tensors["norm.weight"][:3].copy_(torch.tensor([nan, 2.0, 5.0])),
    )

    found = only(diff(a, b))

    assert (found.values, found.nan_in_one, found.first, found.max_abs) == (1, 1, (1,), 0.0)
    assert found.first_values[0] == 2.0
    assert math.isnan(found.first_values[1])


def test_infinity_is_as_far_as_it_gets(pair):
    def change(weights):
        weights["norm.weight"][3] = float("inf")

    found = only(diff(*pair(change)))

    assert (found.max_abs, found.max_rel, found.worst) == (math.inf, 2.0, (3,))
    json.dumps(diff_module._plain({"far": found.max_abs}), allow_nan=False)


@pytest.mark.parametrize(("dtype", "equal"), [("float32", True), ("bfloat16", False)])
def test_another_dtype_is_reported_and_the_values_are_compared(tmp_path, dtype, equal):
    weights = random_model()
    a = write_model(tmp_path / "a", weights)
    b = write_model(tmp_path / "b", {name: it.astype(dtype) for name, it in weights.items()}, 2)

    report = diff(a, b)

    assert not report.same
    assert {it.kind for it in report.differing} == {"dtype"}
    assert {it.values == 0 for it in report.differing} == {equal}


def test_another_shape_and_a_missing_parameter_are_reported(tmp_path):
    weights = random_model()
    a = write_model(tmp_path / "a", weights)
    fewer = {name: it for name, it in weights.items() if name != "norm.weight"}
    fewer["output.weight"] = fewer["output.weight"][:12].copy()
    b = write_model(tmp_path / "b", fewer)

    kinds = {it.name: it.kind for it in diff(a, b).differing}

    assert kinds == {"norm.weight": "only in A", "output.weight": "shape"}


def test_other_numbers_make_another_model(tmp_path):
    weights = random_model()
    a = write_model(tmp_path / "a", weights)
    b = write_model(tmp_path / "b", weights, params=PARAMS | {"norm_eps": 1e-6})

    report = diff(a, b)

    assert report.numbers == {"norm_eps": (1e-5, 1e-6)}
    assert not report.same
    assert not report.differing


def test_integers_too_large_for_a_float_are_distinguished():
    from llamakit.examine.values import compare

    found = compare(np.array([2**60, 5]), np.array([2**60 + 1, 5]))

    assert (found.bits, found.values, found.first) == (1, 1, 0)


def test_progress_is_said_with_the_bytes_that_there_are(pair):
    a, b = pair(dict.copy)
    steps = []

    diff(a, b, progress=steps.append)

    total = sum(tensor.nbytes for tensor in random_model().values())
    assert [step.total for step in steps] == [total] * (len(NAMES) + 1)
    assert [step.nbytes for step in steps] == sorted(step.nbytes for step in steps)
    assert (steps[0].nbytes, steps[-1].nbytes) == (0, total)
