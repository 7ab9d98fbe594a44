"""Processors that transformers has too give the same values, bit by bit, ties included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rows_kit import GONE, histories, logits, processor, row, rows
from transformers.generation import logits_process as peer

often = settings(max_examples=150)


def check(ours: str, theirs: Any, scores: torch.Tensor) -> None:
    """Compare processors that look at the logits alone."""
    unused = torch.zeros(len(scores), 1, dtype=torch.long)

    found = processor(ours)(scores, rows(len(scores)))

    assert torch.equal(found, theirs(unused, scores))


def check_with_history(
    ours: str, theirs: Any, scores: torch.Tensor, tokens: list[list[int]]
) -> None:
    """Compare processors that look at the tokens so far; a row that would lose all stays."""
    expected = theirs(torch.tensor(tokens), scores)
    left = expected.isfinite().any(-1, keepdim=True)

    found = processor(ours)(scores, [row(line) for line in tokens])

    assert torch.equal(found, expected.where(left, scores))


@often
@given(logits(), st.floats(0.01, 10.0))
def test_temperature(scores: torch.Tensor, value: float) -> None:
    check(f"temperature:value={value!r}", peer.TemperatureLogitsWarper(value), scores)


@often
@given(logits(), st.integers(1, 50))
def test_top_k(scores: torch.Tensor, k: int) -> None:
    check(f"top-k:k={k}", peer.TopKLogitsWarper(k), scores)


@often
@given(logits(), st.floats(0.0, 1.0))
def test_min_p(scores: torch.Tensor, p: float) -> None:
    check(f"min-p:p={p!r}", peer.MinPLogitsWarper(p), scores)


@often
@given(logits(), st.floats(0.01, 0.99))
def test_typical(scores: torch.Tensor, mass: float) -> None:
    check(f"typical:mass={mass!r}", peer.TypicalLogitsWarper(mass), scores)


@often
@given(logits(), st.floats(0.0, 0.999))
def test_top_p_where_no_mass_is_p_itself(scores: torch.Tensor, p: float) -> None:
    probs = scores.double().softmax(-1).sort(descending=True).values
    assume(bool((((probs.cumsum(-1) - probs) - p).abs() > 1e-5).logical_or(probs < 1e-9).all()))

    expected = peer.TopPLogitsWarper(p)(torch.zeros(len(scores), 1), scores)

    found = processor(f"top-p:p={p!r}")(scores, rows(len(scores)))

    # which of several equals stay at the edge is anybody's guess in transformers, how many is not
    assert torch.equal(found.sort().values, expected.sort().values)
    assert torch.equal(found[found.isfinite()], scores[found.isfinite()])
    edge = found.masked_fill(found == GONE, torch.inf).amin(-1, keepdim=True)
    assert torch.equal(found[scores != edge], expected[scores != edge])


@often
@given(logits(), st.data(), st.floats(0.1, 5.0))
def test_repetition_penalty(scores: torch.Tensor, data: st.DataObject, penalty: float) -> None:
    tokens = data.draw(histories(*scores.shape))

    check_with_history(
        f"repetition-penalty:penalty={penalty!r}",
        peer.RepetitionPenaltyLogitsProcessor(penalty),
        scores,
        tokens,
    )


@often
@given(logits(), st.data(), st.floats(0.1, 5.0))
def test_repetition_penalty_of_the_answer_alone(
    scores: torch.Tensor, data: st.DataObject, penalty: float
) -> None:
    tokens = data.draw(histories(*scores.shape))
    prompt = data.draw(st.integers(0, len(tokens[0])))
    theirs = peer.RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=prompt)

    found = processor(f"repetition-penalty:penalty={penalty!r},prompt=no")(
        scores, [row(line, prompt) for line in tokens]
    )

    assert torch.equal(found, theirs(torch.tensor(tokens), scores))


@often
@given(logits(), st.data(), st.integers(1, 5))
def test_no_repeat_ngram(scores: torch.Tensor, data: st.DataObject, n: int) -> None:
    tokens = data.draw(histories(*scores.shape))

    check_with_history(
        f"no-repeat-ngram:n={n}", peer.NoRepeatNGramLogitsProcessor(n), scores, tokens
    )


@often
@given(logits(min_ids=2), st.data(), st.integers(0, 12))
def test_min_length(scores: torch.Tensor, data: st.DataObject, length: int) -> None:
    tokens = data.draw(histories(*scores.shape))
    prompt = data.draw(st.integers(0, len(tokens[0])))
    stop = data.draw(st.lists(st.integers(0, scores.shape[-1] - 1), max_size=3))
    theirs = peer.MinNewTokensLengthLogitsProcessor(prompt, length, stop)
    expected = theirs(torch.tensor(tokens), scores)
    left = expected.isfinite().any(-1, keepdim=True)

    found = processor(f"min-length:length={length}")(
        scores, [row(line, prompt, stop=stop) for line in tokens]
    )

    assert torch.equal(found, expected.where(left, scores))


@often
@given(logits(min_ids=7), st.dictionaries(st.integers(0, 6), st.floats(-50, 50), min_size=1))
def test_logit_bias(scores: torch.Tensor, biases: dict[int, float]) -> None:
    typed = ",".join(f"{token}:{value!r}" for token, value in biases.items())
    theirs = peer.SequenceBiasLogitsProcessor([[[token], value] for token, value in biases.items()])

    check(f"logit-bias:bias={typed}", theirs, scores)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("temperature:value=0.7", peer.TemperatureLogitsWarper(0.7)),
        ("top-k:k=40", peer.TopKLogitsWarper(40)),
        ("top-p:p=0.9", peer.TopPLogitsWarper(0.9)),
        ("min-p:p=0.05", peer.MinPLogitsWarper(0.05)),
        ("typical:mass=0.9", peer.TypicalLogitsWarper(0.9)),
    ],
)
def test_a_whole_vocabulary(ours: str, theirs: Callable[..., torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(3, 32000, generator=generator) * 4

    check(ours, theirs, scores)
