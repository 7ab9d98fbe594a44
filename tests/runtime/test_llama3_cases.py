"""What Meta's code answered with Llama 3 and 4, answered again on any number of ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamakit.api import Llama
from llamakit.runtime.cache_slots import CacheSlots

CASES = Path(__file__).parents[1] / "data" / "reference-cases-llama3"


def expected_of(case: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((CASES / f"{case}.expected.json").read_text())
    return values


def build(case: str, ranks: int = 1, **settings: Any) -> Llama:
    sizes = {"max_seq_len": 2048, "model_parallel_size": ranks}
    return Llama.build(str(CASES / case), dtype="float32", **sizes, **settings)


def last_logits(llama: Llama, tokens: list[int], *chunks: int) -> list[float]:
    """Compute the logits that follow some tokens, which come in chunks of some lengths."""
    cache = CacheSlots(llama._executor, 1, len(tokens))
    start = 0
    for chunk in chunks:
        logits, _ = cache.forward(0, [tokens[start : start + chunk]])
        start += chunk
    assert start == len(tokens)
    cache.close()
    values: list[float] = logits[0].tolist()
    return values


@pytest.mark.parametrize(
    ("case", "ranks"),
    [
        ("llama3-gqa-mp1", 1),
        ("llama31-mp8", 1),
        ("llama4-moe-mp2", 1),
        ("llama3-gqa-mp1", 4),  # more ranks than key/value heads
        ("llama31-mp8", 2),
        ("llama4-moe-mp2", 2),
        pytest.param("llama3-gqa-mp1", 2, marks=pytest.mark.soak),
        pytest.param("llama4-moe-mp2", 4, marks=pytest.mark.soak),
        pytest.param("llama31-mp8", 4, marks=pytest.mark.soak),
        pytest.param("llama31-mp8", 8, marks=pytest.mark.soak),
    ],
)
def test_every_number_of_ranks_gives_what_the_reference_gave(case: str, ranks: int) -> None:
    expected = expected_of(case)
    text = expected["long_prompt"]["tokens"]

    with build(case, ranks) as llama:
        tokens, logprobs = llama.generate(
            expected["prompt_tokens"], max_gen_len=24, temperature=0, logprobs=True
        )
        logits = last_logits(llama, text, 512, 512, 377)
        _, all_scores = llama.generate([text], 1, temperature=0, logprobs=True, echo=True)

    assert logprobs is not None
    assert all_scores is not None
    scores = all_scores[0]
    for answer, ours, theirs in zip(tokens, logprobs, expected["greedy"], strict=True):
        assert answer == without_stop(theirs["tokens"], llama.tokenizer.stop_ids)
        assert ours[: len(answer)] == pytest.approx(theirs["logprobs"][: len(answer)], abs=1e-4)
    assert logits == pytest.approx(expected["long_prompt"]["last_logits"], abs=1e-4)
    mean = sum(scores[1 : len(text)]) / (len(text) - 1)
    assert mean == pytest.approx(expected["long_prompt"]["mean_logprob"], abs=1e-4)


def without_stop(tokens: list[int], stops: Any) -> list[int]:
    return tokens[:-1] if tokens[-1] in stops else tokens


def test_a_kept_prefix_and_drafts_change_no_token() -> None:
    prompt = expected_of("llama31-mp8")["prompt_tokens"][0] * 4

    def answer(tokens: list[int], **settings: Any) -> list[int | None]:
        chunks = llama.stream([tokens], temperature=0, max_new_tokens=16, **settings)
        return [chunk.token for chunk in chunks]

    with build("llama31-mp8") as llama:
        turn = [*prompt, *[token for token in answer(prompt) if token is not None]]
        second = answer(turn)
        llama.forget()
        fresh = answer(turn)
        drafted = answer(turn, draft="prompt-lookup")

    assert second == fresh
    assert [token for token in drafted if token is not None] == fresh


def test_another_rope_factor_is_computed_on_request() -> None:
    text = expected_of("llama31-mp8")["long_prompt"]["tokens"]
    settings: dict[str, Any] = {"dtype": "float32", "max_seq_len": 2048}

    with Llama.open(CASES / "llama31-mp8", rope_factor=8, **settings) as llama:
        same = last_logits(llama, text, 1401)
    with Llama.open(CASES / "llama31-mp8", rope_factor=32, **settings) as llama:
        other = last_logits(llama, text, 1401)

    expected = expected_of("llama31-mp8")["long_prompt"]["last_logits"]
    assert same == pytest.approx(expected, abs=1e-4)
    assert other != pytest.approx(expected, abs=1e-2)


def test_steps_of_one_token_attend_within_chunks_as_a_prefill_does() -> None:
    text = expected_of("llama4-moe-mp2")["long_prompt"]["tokens"][:1030]

    with build("llama4-moe-mp2") as llama:
        at_once = last_logits(llama, text, 1030)
        across = last_logits(llama, text, 500, 100, 430)  # chunks of the model end within these
        by_one = last_logits(llama, text, 1022, *[1] * 8)

    assert across == pytest.approx(at_once, abs=1e-4)
    assert by_one == pytest.approx(at_once, abs=1e-4)


@pytest.mark.parametrize("case", ["llama31-mp8", "llama4-moe-mp2"])
@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_rounded_weights_give_nearly_the_same_logits(case: str, quantize: str) -> None:
    text = expected_of(case)["long_prompt"]["tokens"][:64]

    with build(case) as llama:
        exact = last_logits(llama, text, 64)
    with build(case, quantize=quantize) as llama:
        rounded = last_logits(llama, text, 64)

    furthest = max(abs(one - other) for one, other in zip(exact, rounded, strict=True))
    assert 0 < furthest < 1.5
