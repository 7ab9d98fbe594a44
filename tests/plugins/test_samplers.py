"""The built-in samplers and processors, drawn and counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from llamakit.api import choose_sampling
from llamakit.errors import OptionError, UnknownNameError, UsageError
from llamakit.sampling import draw_ids

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -8.0])


@dataclass
class FakeRow:
    """What a sampler sees of a sequence."""

    generator: torch.Generator
    tokens: list[int] = field(default_factory=lambda: [1])
    prompt_length: int = 1
    stop_tokens: frozenset[int] = frozenset({2})
    state: dict[Any, Any] = field(default_factory=dict)


def rows(count: int, seed: int = 0) -> list[FakeRow]:
    return [FakeRow(torch.Generator().manual_seed(seed + number)) for number in range(count)]


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
    # sample_top_p of the reference: ids are masked where the mass before them exceeds p
    probs = (LOGITS.double() / 0.8).softmax(-1)
    before = probs.cumsum(-1) - probs
    expected = torch.where(before > p, 0.0, probs)
    expected /= expected.sum()

    found = frequencies(choose_sampling(temperature=0.8, top_p=p))

    assert chi_square(found, expected) < 18.5


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
        ({"sampler_options": ["p=1"]}, UsageError, "needs --sampler NAME"),
        ({"sampler": "draw", "top_p": 0.5}, UsageError, "belongs to the sampler top-p"),
        ({"sampler": "draw", "temperature": 0}, UsageError, "means greedy"),
    ],
)
def test_wrong_settings_say_what_is_wrong(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        choose_sampling(**settings)
