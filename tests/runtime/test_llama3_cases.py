"""What Meta's code answered with Llama 3 and 4, answered again on any number of ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from by_tokens import greedy, last_logits, loaded

CASES = Path(__file__).parents[1] / "data" / "reference-cases-llama3"


def expected_of(case: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((CASES / f"{case}.expected.json").read_text())
    return {"stop_tokens": [1025, 1032, 1033]} | values


@pytest.mark.parametrize(
    ("case", "ranks"),
    [
        ("llama3-gqa-mp1", 1),
        ("llama31-mp8", 1),
        ("llama3-gqa-mp1", 4),  # more ranks than key/value heads
        ("llama31-mp8", 2),
        ("llama4-moe-mp2", 1),
        ("llama4-moe-mp2", 4),
        pytest.param("llama4-moe-mp2", 2, marks=pytest.mark.soak),
        pytest.param("llama3-gqa-mp1", 2, marks=pytest.mark.soak),
        pytest.param("llama31-mp8", 4, marks=pytest.mark.soak),
        pytest.param("llama31-mp8", 8, marks=pytest.mark.soak),
    ],
)
def test_every_number_of_ranks_gives_what_the_reference_gave(case: str, ranks: int) -> None:
    expected = expected_of(case)
    count = max(len(answer["tokens"]) for answer in expected["greedy"])
    text = expected["long_prompt"]["tokens"]

    with loaded(CASES / case, ranks) as model:
        tokens, logprobs = greedy(model, expected["prompt_tokens"], count, expected["stop_tokens"])
        logits = last_logits(model, text)
        (prompt_logprobs,) = prompt_logprobs_of(model, text)

    for answer, ours, theirs in zip(tokens, logprobs, expected["greedy"], strict=True):
        assert answer == without_stop(theirs["tokens"], expected["stop_tokens"])
        assert ours == pytest.approx(theirs["logprobs"][: len(ours)], abs=1e-4)
    assert logits == pytest.approx(expected["long_prompt"]["last_logits"], abs=1e-4)
    mean = sum(prompt_logprobs[1:]) / (len(text) - 1)
    assert mean == pytest.approx(expected["long_prompt"]["mean_logprob"], abs=1e-4)


def without_stop(tokens: list[int], stops: list[int]) -> list[int]:
    return tokens[:-1] if tokens[-1] in stops else tokens


def prompt_logprobs_of(model: Any, tokens: list[int]) -> list[list[float]]:
    from llamakit.llama.sampler_choice import choose_sampling

    sampling = choose_sampling(
        temperature=0, top_p=None, toolkit=model.toolkit, tokenizer=model.tokenizer
    )
    scores: list[float] = []
    events = model.events(
        [tokens], sampling, seeds=[1], max_new_tokens=1, logprobs=True, prompt_logprobs=True
    )
    for event in events:
        scores += event.prompt_logprobs or ()
    return [scores]


def test_a_kept_prefix_and_drafts_change_no_token() -> None:
    expected = expected_of("llama31-mp8")
    prompt = expected["prompt_tokens"][0] * 4

    with loaded(CASES / "llama31-mp8") as model:
        plain = greedy(model, [prompt], 16)[0]
        turn = [*prompt, *plain[0]]
        second = greedy(model, [turn], 16)[0]
        model.forget()
        fresh = greedy(model, [turn], 16)[0]
        drafted = greedy(model, [turn], 16, draft="prompt-lookup")[0]

    assert second == fresh == drafted


def test_steps_of_one_token_attend_within_chunks_as_a_prefill_does() -> None:
    text = expected_of("llama4-moe-mp2")["long_prompt"]["tokens"][:1030]

    with loaded(CASES / "llama4-moe-mp2") as model:
        at_once = last_logits(model, text, chunk=len(text))
        in_steps = last_logits(model, text, chunk=103)  # chunks end within some
        by_one = last_logits_by_one(model, text)

    assert in_steps == pytest.approx(at_once, abs=1e-4)
    assert by_one == pytest.approx(at_once, abs=1e-4)


def last_logits_by_one(model: Any, tokens: list[int]) -> list[float]:
    from llamakit.runtime.cache_slots import CacheSlots

    cache = CacheSlots(model._executor, 1, len(tokens))
    cache.forward(0, [tokens[:-8]])
    for token in tokens[-8:]:
        logits, _ = cache.forward(0, [[token]])
    values: list[float] = logits[0].tolist()
    return values


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_rounded_weights_give_nearly_the_same_logits(quantize: str) -> None:
    expected = expected_of("llama31-mp8")
    text = expected["long_prompt"]["tokens"][:64]

    with loaded(CASES / "llama31-mp8") as model:
        exact = last_logits(model, text)
    with loaded(CASES / "llama31-mp8", quantize=quantize) as model:
        rounded = last_logits(model, text)

    furthest = max(abs(one - other) for one, other in zip(exact, rounded, strict=True))
    assert 0 < furthest < 1
