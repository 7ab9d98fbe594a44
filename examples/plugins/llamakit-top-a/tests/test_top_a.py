"""The sampler alone, and through llamakit as users reach it."""

from types import SimpleNamespace

import pytest
import torch
from llamakit_top_a import top_a

import llamakit
from llamakit.api import choose_sampling
from llamakit.demo import path

PROBS = torch.tensor([[0.5, 0.3, 0.12, 0.05, 0.03]])


def rows(seed, count=1):
    return [
        SimpleNamespace(generator=torch.Generator().manual_seed(seed + row)) for row in range(count)
    ]


def frequencies(a, draws=20000):
    ids = top_a(a)(PROBS.log().expand(draws, -1), rows(0, 1) * draws)
    return torch.bincount(ids, minlength=5) / draws


@pytest.mark.parametrize(("a", "kept"), [(0.0, 5), (0.18, 4), (0.4, 3), (0.6, 2), (1.0, 2)])
def test_tokens_are_drawn_as_probable_as_they_are_among_those_kept(a, kept):
    expected = PROBS[0].clone()
    expected[kept:] = 0

    drawn = frequencies(a)

    assert drawn[kept:].sum() == 0
    torch.testing.assert_close(drawn, expected / expected.sum(), atol=0.02, rtol=0)


def test_a_sure_model_is_left_no_choice():
    sure = torch.tensor([[0.95, 0.04, 0.01]]).log()

    assert {int(top_a(0.2)(sure, rows(seed))) for seed in range(100)} == {0}


def test_a_rows_id_does_not_depend_on_its_neighbours():
    logits = torch.randn(4, 100, generator=torch.Generator().manual_seed(1))
    sample = top_a()

    together = sample(logits, rows(7, 4))
    alone = [int(sample(logits[row : row + 1], rows(7 + row))) for row in range(4)]

    assert together.tolist() == alone
    assert together.dtype == torch.int64


@pytest.mark.parametrize("a", [-0.1, 1.5, float("nan")])
def test_a_value_out_of_range_is_the_users_to_fix(a):
    with pytest.raises(llamakit.LlamakitError, match="it has to be between 0 and 1"):
        choose_sampling(sampler="top-a", sampler_options={"a": a})


def test_the_bundled_demo_model_answers_with_it_and_a_seed_repeats_the_answer():
    model = llamakit.Llama.open(path())
    sampling = choose_sampling(sampler="top-a", sampler_options={"a": 0.1})
    prompt = [llamakit.load_tokenizer(path()).encode("Once upon a time", bos=True)]

    answers = [
        [
            chunk.token
            for chunk in model.stream(prompt, sampling=sampling, seed=seed, max_new_tokens=12)
        ]
        for seed in (3, 3, 4)
    ]

    assert answers[0] == answers[1] != answers[2]
