"""The built-in samplers and processors, drawn and counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_kit import logits, processor, row, rows

from llamakit.api import choose_sampling
from llamakit.errors import OptionError, UnknownNameError, UsageError
from llamakit.sampling import draw_ids

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -8.0])


def frequencies(sampling: Any, draws: int = 4000) -> torch.Tensor:
    ids = sampling(LOGITS.expand(draws, -1), rows(draws))
    return torch.bincount(ids, minlength=len(LOGITS)).double() / draws


def chi_square(found: torch.Tensor, expected: torch.Tensor, draws: int = 4000) -> float:
    kept = expected > 0
    assert found[~kept].sum() == 0
    return float(draws * ((found - expected)[kept] ** 2 / expected[kept]).sum())


def test_greedy_takes_the_most_likely_and_of_equals_the_first() -> None:
    sampling = choose_sampling(sampler="greedy")

    ids = sampling(torch.tensor([[0.0, 3.0, 1.0], [5.0, 5.0, 0.0]]), rows(2))

    assert ids.tolist() == [1, 0]


def test_draw_follows_the_distribution() -> None:
    found = frequencies(choose_sampling(sampler="draw"))

    assert chi_square(found, LOGITS.double().softmax(-1)) < 18.5  # 4 degrees, p = 0.001


def test_draw_with_temperature_follows_the_sharper_distribution() -> None:
    found = frequencies(choose_sampling(sampler="draw", processors=["temperature:value=0.5"]))

    assert chi_square(found, (LOGITS.double() / 0.5).softmax(-1)) < 18.5


@pytest.mark.parametrize("p", [0.0, 0.5, 0.64, 0.9, 1.0])
def test_top_p_follows_the_reference(p: float) -> None:
    # sample_top_p of the reference: tokens are masked where the mass before them exceeds p
    probs = (LOGITS.double() / 0.8).softmax(-1)
    before = probs.cumsum(-1) - probs
    expected = torch.where(before > p, 0.0, probs)
    expected /= expected.sum()

    found = frequencies(choose_sampling(temperature=0.8, top_p=p))

    assert chi_square(found, expected) < 18.5


@settings(max_examples=150, deadline=None)
@given(scores=logits(min_ids=60, max_ids=400), p=st.sampled_from([0.0, 0.5, 0.9, 0.99]))
def test_top_p_draws_from_its_likeliest_tokens_what_it_draws_from_all(
    scores: torch.Tensor, p: float
) -> None:
    likely, ids = (scores / 0.8).softmax(-1).sort(dim=-1, descending=True, stable=True)
    likely = likely.masked_fill(likely.cumsum(-1) - likely > p, 0.0)
    sampling = choose_sampling(temperature=0.8, top_p=p)
    some, same = rows(len(scores)), rows(len(scores))

    drawn = [sampling(scores, some).tolist() for _ in range(3)]

    assert drawn == [
        ids.gather(-1, draw_ids(likely, same)[:, None])[:, 0].tolist() for _ in range(3)
    ]


def expected_after(choice: str) -> torch.Tensor:
    """Return what tokens are drawn with after a processor that looks at the logits alone."""
    return processor(choice)(LOGITS[None], rows(1))[0].double().softmax(-1)


@pytest.mark.parametrize(
    "choice",
    [
        "top-k:k=3",
        "top-p:p=0.8",
        "min-p:p=0.1",
        "typical:mass=0.6",
        "top-n-sigma:n=0.8",
        "dynamic-temperature:low=0.5,high=2",
    ],
)
def test_draw_follows_what_a_processor_has_left(choice: str) -> None:
    found = frequencies(choose_sampling(sampler="draw", processors=[choice]))

    assert chi_square(found, expected_after(choice)) < 18.5


def test_processors_are_applied_in_the_order_given() -> None:
    # hot first: the mass is spread, so that top-p keeps more
    first = choose_sampling(sampler="draw", processors=["temperature:value=3", "top-p:p=0.6"])
    last = choose_sampling(sampler="draw", processors=["top-p:p=0.6", "temperature:value=3"])

    def expected(ids: int) -> torch.Tensor:
        left = LOGITS.double().div(3)
        left[ids:] = -torch.inf
        return left.softmax(-1)

    assert chi_square(frequencies(first), expected(2)) < 18.5
    assert chi_square(frequencies(last), expected(1)) < 18.5


def test_mirostat_draws_from_what_is_not_too_surprising() -> None:
    # tau 0.9 lets in up to 1.8 bits at first: of 0.64, 0.24, 0.09, 0.03 that is the first alone;
    # tau 1.1 lets in up to 2.2 bits, the first two; 2 up to 4 bits, three
    probs = LOGITS.double().softmax(-1)
    for tau, count in ((0.9, 1), (1.1, 2), (2.0, 3)):
        expected = torch.where(torch.arange(5) < count, probs, 0.0)

        found = frequencies(choose_sampling(sampler="mirostat", sampler_options={"tau": tau}))

        assert chi_square(found, expected / expected.sum()) < 13.8  # 2 degrees, p = 0.001


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_xtc_acts_as_often_as_its_option_says(probability: float) -> None:
    draws = 4000
    process = processor(f"xtc:threshold=0.2,probability={probability}")

    made = process(LOGITS.expand(draws, -1), rows(draws))

    acted = int((made[:, 0] == -torch.inf).sum())
    expected = draws * probability
    assert (acted - expected) ** 2 / (expected * (1 - probability)) < 10.8  # 1 degree, p = 0.001
    assert bool(made[:, 1:].isfinite().all())


@pytest.mark.parametrize("probability", [0, 1])
def test_xtc_acts_never_or_always(probability: int) -> None:
    made = processor(f"xtc:probability={probability}")(LOGITS.expand(500, -1), rows(500))

    assert set((made[:, 0] == -torch.inf).tolist()) == {bool(probability)}


def test_xtc_draws_again_at_every_step() -> None:
    one, process = rows(1), processor("xtc:threshold=0.2,probability=0.5")

    made = [bool(process(LOGITS[None], one)[0, 0].isfinite()) for _ in range(40)]

    assert 8 < sum(made) < 32


def test_xtc_does_not_take_away_the_end_of_an_answer() -> None:
    made = processor("xtc:threshold=0.2,probability=1")(
        LOGITS.expand(2, -1), [row(stop=[0, 999]), row(stop=[1])]
    )

    assert made.isfinite().sum(-1).tolist() == [5, 4]


def test_draws_come_from_the_rows_own_generators() -> None:
    probs = torch.rand(6, 50, generator=torch.Generator().manual_seed(1))

    together = draw_ids(probs, rows(6))

    alone = [int(draw_ids(probs[number : number + 1], rows(6)[number:])[0]) for number in range(6)]
    assert together.tolist() == alone


def test_temperature_0_is_greedy() -> None:
    ids = choose_sampling(temperature=0)(LOGITS.expand(20, -1), rows(20))

    assert ids.tolist() == [0] * 20


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"sampler": "gredy"},
            UnknownNameError,
            "no sampler is called 'gredy'; did you mean 'greedy'",
        ),
        ({"processors": ["tempature"]}, UnknownNameError, "did you mean 'temperature'"),
        ({"sampler": "top-p", "sampler_options": ["q=1"]}, OptionError, "no option 'q'"),
        ({"sampler": "top-p", "sampler_options": ["p=hot"]}, OptionError, "hot"),
        ({"sampler": "top-p", "sampler_options": ["p=2"]}, OptionError, "between 0 and 1"),
        ({"top_p": 7.0}, OptionError, "between 0 and 1"),
        ({"temperature": -1.0}, OptionError, "above 0"),
        ({"processors": ["temperature:value=0"]}, OptionError, "above 0"),
        ({"sampler_options": ["p=1"]}, UsageError, "needs sampler=NAME"),
        ({"sampler": "draw", "top_p": 0.5}, UsageError, "belongs to the sampler top-p"),
        ({"sampler": "draw", "temperature": 0}, UsageError, "means greedy"),
    ],
)
def test_wrong_settings_say_what_is_wrong(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        choose_sampling(**settings)
