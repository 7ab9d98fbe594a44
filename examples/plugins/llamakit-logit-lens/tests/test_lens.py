"""The lens on the bundled demo model: the last layer is the model itself."""

import math

import pytest
from llamakit_logit_lens import logit_lens

import llamakit
from llamakit.demo import path
from llamakit.testing import check_observer, check_plugin

NEW = 6
GREEDY = {"temperature": 0, "max_new_tokens": NEW, "stop_tokens": (), "logprobs": True}


@pytest.fixture(scope="module")
def model():
    with llamakit.Llama.open(path(), dtype="float32") as model:
        yield model


@pytest.fixture(scope="module")
def prompt(model):
    return model.tokenizer.encode("Once upon a time", bos=True)


def observed(model, prompt, name):
    """Return the chunks of a greedy answer, and what the lens has found."""
    chunks = list(model.stream([prompt], observers=[name], **GREEDY))
    (found,) = chunks[-1].observed
    return chunks, found


def test_the_plugin_registers():
    check_plugin("llamakit_logit_lens")


@pytest.mark.parametrize("options", [{}, {"top": 1}, {"every": 3}, {"last": 2}])
def test_it_keeps_the_contract(options):
    check_observer(logit_lens, **options)


def test_the_last_layer_says_what_the_model_said(model, prompt):
    chunks, found = observed(model, prompt, "logit-lens")

    answer = found["positions"][len(prompt) - 1 :]
    assert [it["cells"][-1][0]["token"] for it in answer] == [chunk.token for chunk in chunks]
    assert [it["next"] for it in answer] == [chunk.token for chunk in chunks]
    for position, chunk in zip(answer, chunks, strict=True):
        probability = position["cells"][-1][0]["probability"]
        assert probability == pytest.approx(math.exp(chunk.logprob), abs=1e-4)


def test_every_position_has_the_likeliest_tokens_of_every_layer(model, prompt):
    _, found = observed(model, prompt, "logit-lens:top=4")

    assert found["layers"] == [0, 1, 2, 3, 4]
    assert [it["position"] for it in found["positions"]] == [*range(len(prompt) + NEW - 1)]
    assert [it["token"] for it in found["positions"][: len(prompt)]] == prompt
    for position in found["positions"]:
        for cell in position["cells"]:
            scores = [it["probability"] for it in cell]
            assert len(cell) == 4
            assert scores == sorted(scores, reverse=True)
            assert 0 < sum(scores) <= 1.0001


def test_fewer_layers_and_positions_are_a_part_of_all(model, prompt):
    _, whole = observed(model, prompt, "logit-lens")
    _, part = observed(model, prompt, "logit-lens:every=3,last=2")

    assert part["layers"] == [0, 3, 4]
    expected = [
        {**it, "cells": [it["cells"][layer] for layer in part["layers"]]}
        for it in whole["positions"][-2:]
    ]
    assert [it["position"] for it in part["positions"]] == [it["position"] for it in expected]
    for one, other in zip(part["positions"], expected, strict=True):
        assert [[it["token"] for it in cell] for cell in one["cells"]] == [
            [it["token"] for it in cell] for cell in other["cells"]
        ]


def test_a_tokens_text_keeps_its_space(model, prompt):
    _, found = observed(model, prompt, "logit-lens")

    assert "".join(it["text"] for it in found["positions"][1:]).startswith(" Once upon a time")


@pytest.mark.parametrize("options", [{"top": 0}, {"top": 101}, {"every": 0}, {"last": 0}])
def test_a_value_out_of_range_is_the_users_to_fix(model, prompt, options):
    name = "logit-lens:" + ",".join(f"{key}={value}" for key, value in options.items())

    with pytest.raises(llamakit.LlamakitError, match=r"ha(s|ve) to be"):
        observed(model, prompt, name)
