"""Samplers and processors that transformers lacks, or that differ from it on purpose.

Each against a few lines of plain Python, written from the paper or the original and not from ours.
"""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rows_kit import GONE, TOKENIZER, FakeRow, histories, logits, processor, row, rows, sampler

from llamakit.sampling import count_ids

often = settings(max_examples=100)


def probabilities(line: list[float]) -> list[float]:
    highest = max(line)
    weights = [math.exp(value - highest) for value in line]
    return [weight / sum(weights) for weight in weights]


def kept(made: torch.Tensor) -> list[set[int]]:
    return [{token for token, value in enumerate(line) if value != GONE} for line in made.tolist()]


@often
@given(logits(), st.floats(0.0, 2.0), st.floats(0.1, 3.0), st.floats(0.2, 3.0))
def test_dynamic_temperature_maps_the_entropy_to_the_range(
    scores: torch.Tensor, low: float, width: float, exponent: float
) -> None:
    made = processor(f"dynamic-temperature:low={low!r},high={low + width!r},exponent={exponent!r}")(
        scores, rows(len(scores))
    )

    for found, line in zip(made, scores, strict=True):
        finite = line[line.isfinite()]
        probs = probabilities(finite.tolist())
        entropy = sum(-prob * math.log(prob) for prob in probs if prob > 0)
        most = math.log(len(probs)) or 1.0
        cold, hot = (  # float32 rounds the entropy, and a root of what is near 0 shows it
            low + width * min(max((entropy + off) / most, 0.0), 1.0) ** exponent
            for off in (-2e-6, 2e-6)
        )
        if cold > 1e-3:
            scaled, slack = found[found.isfinite()], 2e-3 * (finite / cold).abs() + 1e-6
            ends = torch.stack((finite / cold, finite / hot))
            assert (scaled >= ends.amin(0) - slack).all()
            assert (scaled <= ends.amax(0) + slack).all()
        assert torch.equal(found == GONE, line == GONE)


@often
@given(logits(), st.floats(0.05, 3.0))
def test_top_n_sigma_keeps_what_is_within_n_deviations(scores: torch.Tensor, n: float) -> None:
    made = processor(f"top-n-sigma:n={n!r}")(scores, rows(len(scores)))

    for left, line in zip(kept(made), scores.tolist(), strict=True):
        finite = [value for value in line if value != GONE]
        mean = sum(finite) / len(finite)
        sigma = math.sqrt(sum((value - mean) ** 2 for value in finite) / len(finite))
        edge = max(finite) - n * sigma
        slack = 1e-4 * max(1.0, *map(abs, finite))
        assert left >= {i for i, value in enumerate(line) if value >= edge + slack}
        assert left <= {i for i, value in enumerate(line) if value >= edge - slack}


@often
@given(logits(), st.floats(0.02, 0.5))
def test_xtc_leaves_the_least_likely_of_the_top_choices(
    scores: torch.Tensor, threshold: float
) -> None:
    made = processor(f"xtc:threshold={threshold!r},probability=1")(scores, rows(len(scores)))

    probs = scores.softmax(-1)
    for number, left in enumerate(kept(made)):
        top = [i for i, prob in enumerate(probs[number].tolist()) if prob >= threshold]
        least = min(probs[number][top].tolist(), default=None)
        stays = next((i for i in top if float(probs[number][i]) == least), None)
        if 2 in top and stays != 2:  # the row's answer may end here
            top = []
        gone = {i for i in top if i != stays}
        assert left == kept(scores)[number] - gone


@often
@given(logits(), st.data(), st.floats(-2, 2), st.booleans(), st.integers(0, 12))
def test_frequency_and_presence_follow_the_formula_of_openai(
    scores: torch.Tensor, data: st.DataObject, penalty: float, prompt: bool, last: int
) -> None:
    tokens = data.draw(histories(*scores.shape))
    length = data.draw(st.integers(0, len(tokens[0])))
    options = f"penalty={penalty!r},prompt={prompt},last={last}"

    frequency = processor(f"frequency-penalty:{options}")(
        scores, [row(it, length) for it in tokens]
    )
    presence = processor(f"presence-penalty:{options}")(scores, [row(it, length) for it in tokens])

    for number, line in enumerate(tokens):
        counted = line if prompt else line[length:]
        counts = Counter(counted[-last:] if last else counted)
        for token, value in enumerate(scores[number].tolist()):
            often, ever = counts[token] * penalty, (counts[token] > 0) * penalty
            assert float(frequency[number, token]) == pytest.approx(value - often, abs=1e-4)
            assert float(presence[number, token]) == pytest.approx(value - ever, abs=1e-4)


@often
@given(st.data(), st.booleans(), st.integers(0, 6))
def test_counts_that_grow_step_by_step_are_those_of_the_whole(
    data: st.DataObject, prompt: bool, last: int
) -> None:
    tokens = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=20))
    length = data.draw(st.integers(0, len(tokens)))
    growing = row(tokens[:length], length)
    scores = torch.zeros(1, 6)

    for stop in range(length, len(tokens) + 1):
        growing.tokens = tokens[:stop]
        if stop < len(tokens) and data.draw(st.booleans()):
            continue  # steps in which no one counts
        for whole, window in ((prompt, last), (prompt, last + 1), (not prompt, last)):
            counted = tokens[0 if whole else length : stop]
            expected = Counter(counted[-window:] if window else counted)
            found = count_ids(scores, [growing], prompt=whole, last=window)
            assert found.tolist() == [[expected[token] for token in range(6)]]


def original_dry(
    tokens: list[int], multiplier: float, base: float, allowed: int, breakers: set[int]
) -> dict[int, float]:
    """Compare every place with the end, as the original's description has it."""
    lengths: dict[int, int] = {}
    for place in range(len(tokens) - 1):
        length = 0
        while (
            length < 50
            and place - length >= 0
            and tokens[place - length] == tokens[-1 - length]
            and tokens[place - length] not in breakers
        ):
            length += 1
        follower = tokens[place + 1]
        if length and follower not in breakers:
            lengths[follower] = max(length, lengths.get(follower, 0))
    return {
        token: multiplier * base ** (length - allowed)
        for token, length in lengths.items()
        if length >= allowed
    }


BREAKER = TOKENIZER.encode("a:")[-1]  # the token of a lone colon


@often
@given(st.data(), st.integers(1, 4), st.integers(0, 10), st.booleans())
def test_dry_follows_the_original(
    data: st.DataObject, allowed: int, last: int, prompt: bool
) -> None:
    vocabulary = [5, 6, 7, BREAKER]
    tokens = data.draw(st.lists(st.sampled_from(vocabulary), min_size=1, max_size=40))
    length = data.draw(st.integers(0, len(tokens) - 1))
    process = processor(f"dry:allowed-length={allowed},last={last},prompt={prompt}")
    scores = torch.randn(1, TOKENIZER.vocab_size, generator=torch.Generator().manual_seed(1))
    growing = row(tokens[:length] or tokens[:1], length)

    process(scores, [growing])  # what it takes in now it need not look at again
    growing.tokens = tokens
    found = process(scores, [growing])[0]

    seen = tokens if prompt else tokens[length:]
    expected = scores[0].clone()
    for token, penalty in original_dry(
        seen[-last:] if last else seen, 0.8, 1.75, allowed, {BREAKER}
    ).items():
        expected[token] -= penalty
    assert found.tolist() == pytest.approx(expected.tolist())


def test_dry_breaks_at_every_token_whose_text_has_a_breaker_in_it() -> None:
    line_end, colon = TOKENIZER.encode("a\n")[-1], BREAKER
    scores = torch.zeros(1, TOKENIZER.vocab_size)

    for end in (line_end, colon):
        tokens = [40, 41, end, 42, 40, 41, end]
        assert processor("dry")(scores, [row(tokens)])[0, 42] == 0
        assert processor("dry:breakers=")(scores, [row(tokens)])[0, 42] < 0
    assert processor("dry:breakers=x|:")(scores, [row([40, 41, 42, 40, 41])])[0, 42] == -0.8


def test_dry_stays_finite_however_long_the_repetition() -> None:
    process = processor("dry:multiplier=100,base=4,allowed-length=1")

    made = process(torch.zeros(1, TOKENIZER.vocab_size), [row([7] * 3000)])

    assert bool(made.isfinite().all())
    assert float(made[0, 7]) == pytest.approx(-100 * 4.0**49)


def test_top_p_keeps_an_id_when_the_mass_before_it_is_p_itself() -> None:
    scores = torch.zeros(1, 4)  # 0.25 each: before the third id stands exactly one half

    made = processor("top-p:p=0.5")(scores, rows(1))

    assert kept(made) == [{0, 1, 2}]


@often
@given(logits(), st.floats(0.0, 1.0))
def test_the_processor_top_p_keeps_what_the_reference_draws_from(
    scores: torch.Tensor, p: float
) -> None:
    # sample_top_p of the reference
    probs, ids = scores.softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = probs.cumsum(-1) - probs
    assume(bool(((before - p).abs() > 1e-6).all()))  # sums in another order round otherwise
    expected = [
        {int(token) for token, mass in zip(*line, strict=True) if mass <= p}
        for line in zip(ids, before, strict=True)
    ]

    made = processor(f"top-p:p={p!r}")(scores, rows(len(scores)))

    if p < 1:
        finite = kept(scores)
        assert kept(made) == [left & line for left, line in zip(expected, finite, strict=True)]
    else:
        assert torch.equal(made, scores)


def test_a_string_that_is_one_token_is_biased_by_name() -> None:
    (the,) = TOKENIZER.encode("the")
    scores = torch.zeros(1, TOKENIZER.vocab_size + 4)  # vocabularies are padded now and then

    made = processor("logit-bias:bias=the:-inf,40:2.5")(scores, rows(1))[0]

    assert made[the] == GONE
    assert made[40] == 2.5
    assert made.isfinite().sum() == len(made) - 1
    assert made.count_nonzero() == 2


@often
@given(logits(), st.floats(0.1, 8.0), st.floats(0.01, 1.0))
def test_mirostat_steers_by_the_surprise_that_it_sees(
    scores: torch.Tensor, tau: float, eta: float
) -> None:
    sample = sampler("mirostat", f"tau={tau!r}", f"eta={eta!r}")
    beginning = rows(len(scores))
    expected = [2 * tau] * len(scores)

    for _ in range(4):
        ids = sample(scores, beginning)
        for number, token in enumerate(ids.tolist()):
            probs = probabilities(scores[number].tolist())
            bits = [-math.log2(prob) if prob > 0 else math.inf for prob in probs]
            near = [abs(bit - expected[number]) < 1e-3 for bit in bits]
            if any(near):
                return  # rounding decides who is in
            left = [bit <= expected[number] for bit in bits]
            left[int(scores[number].argmax())] = True
            assert left[token]
            mass = sum(prob for prob, stays in zip(probs, left, strict=True) if stays)
            expected[number] -= eta * (-math.log2(probs[token] / mass) - tau)

    found = [float(value) for it in beginning for value in it.state.values()]
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_mirostat_reaches_the_surprise_that_is_wanted() -> None:
    scores = torch.arange(200.0).mul(-0.05)[None]
    probs = scores[0].softmax(-1)
    sample = sampler("mirostat", "tau=3")
    one: list[FakeRow] = rows(1, seed=5)
    total = 0.0

    for step in range(600):
        before = float(next(iter(one[0].state.values()), torch.tensor(6.0)))
        token = int(sample(scores, one)[0])
        mass = float(probs[-probs.log2() <= before].sum())
        total += -math.log2(float(probs[token]) / mass) if step >= 200 else 0.0

    assert total / 400 == pytest.approx(3.0, abs=0.15)
