"""Keys and values in 8 bits: nearly the same answers from half the memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_kit import counting, random_tokens

from llamakit.api import Llama
from llamakit.errors import UsageError
from llamakit.runtime.int8_attention import SPLIT, attend_rounded
from llamakit.runtime.kv_cache import Int8KVCache, KVCache, Place

CPU = torch.device("cpu")


def opened(cases: Path, *, ranks: int = 1, kv_cache: str | None = "int8") -> Llama:
    return Llama.open(
        cases / "gqa-mp1",
        max_seq_len=256,
        dtype="float32",
        model_parallel_size=ranks,
        kv_cache=kv_cache,
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_log_probabilities_are_nearly_those_of_an_exact_cache(
    reference_cases: Path, ranks: int
) -> None:
    prompts = [random_tokens(90), random_tokens(7, 1)]
    with opened(reference_cases, kv_cache=None) as exact:
        tokens, expected = exact.generate(prompts, 8, temperature=0, logprobs=True)

    with opened(reference_cases, ranks=ranks) as llama:
        _, found = llama.generate(
            [[*prompt, *answer] for prompt, answer in zip(prompts, tokens, strict=True)],
            1,
            temperature=0,
            logprobs=True,
            echo=True,
        )

    assert found is not None
    assert expected is not None
    for prompt, ours, theirs in zip(prompts, found, expected, strict=True):
        of_answer = ours[len(prompt) : len(prompt) + len(theirs)]
        assert of_answer == pytest.approx(theirs, abs=0.05)
        assert of_answer != theirs


def test_a_prefix_is_computed_once(reference_cases: Path) -> None:
    with opened(reference_cases) as llama:
        executor = counting(llama)
        first = random_tokens(60)
        (answer,), _ = llama.generate([first], 5, temperature=0)
        executor.batches.clear()
        turn = [*first, *answer, 7]

        reused = llama.generate([turn], 5, temperature=0)

        assert executor.computed == 2 + 4
        llama.forget()
        assert llama.generate([turn], 5, temperature=0) == reused


def test_drafts_change_no_answer(reference_cases: Path) -> None:
    prompt = [1, *[300, 301, 302, 303] * 8]
    with opened(reference_cases) as llama:
        plain = [it.token for it in llama.stream([prompt], temperature=0, max_new_tokens=20)]
        llama.forget()

        drafted = llama.stream([prompt], temperature=0, max_new_tokens=20, draft="prompt-lookup")

        assert [it.token for it in drafted] == plain


def test_a_position_takes_half_the_memory_of_16_bits() -> None:
    sizes = [
        kind(2, 1, 16, 4, 128, torch.bfloat16, CPU).position_nbytes
        for kind in (Int8KVCache, KVCache)
    ]

    assert sizes == [2 * 4 * (128 + 2), 2 * 4 * 256]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_value_is_off_by_half_a_step_at_most(dtype: torch.dtype) -> None:
    cache = Int8KVCache(1, 1, 4, 2, 64, dtype, CPU)
    k = (torch.randn(1, 4, 2, 64, generator=torch.Generator().manual_seed(0)) * 30).to(dtype)
    k[0, 1] = 0

    cache.write(0, Place.of(0, 0, torch.arange(4)[None]), k, k)
    keys, _ = cache.read(0, slice(0, 1), 0, 4)

    step = k.float().abs().amax(-1, keepdim=True) / 127
    rounding = torch.finfo(dtype).eps * k.float().abs()
    error = (keys.transpose(1, 2).float() - k.float()).abs()
    assert (error <= 0.51 * step + rounding).all()
    assert (keys[0, :, 1] == 0).all()


def test_infinity_is_not_hidden() -> None:
    cache = Int8KVCache(1, 1, 1, 1, 4, torch.float32, CPU)
    k = torch.tensor([1.0, float("inf"), 2.0, 3.0]).view(1, 1, 1, 4)

    cache.write(0, Place.of(0, 0, torch.zeros(1, 1, dtype=torch.long)), k, k)

    keys, _ = cache.read(0, slice(0, 1), 0, 1)
    assert not keys.isfinite().all()


def test_another_kind_of_cache_is_refused(reference_cases: Path) -> None:
    with pytest.raises(UsageError, match="kv_cache is 'int4': pass 'int8'"):
        opened(reference_cases, kv_cache="int4")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stop", [1, SPLIT - 1, SPLIT, 5000])
def test_products_of_integers_attend_as_products_of_what_they_stand_for(
    stop: int, dtype: torch.dtype
) -> None:
    seeded = torch.Generator().manual_seed(stop)
    q = (2 * torch.randn(2, 3, 5, 32, generator=seeded)).to(dtype)
    keys, values = (
        torch.randint(-127, 128, (2, 3, stop, 32), dtype=torch.int8, generator=seeded)
        for _ in range(2)
    )
    scales = (torch.rand(2, 3, stop, 1, generator=seeded) / 60).to(dtype)

    found, weight = attend_rounded(q, keys, values, scales, scales)

    logits = q.double() @ (keys.double() * scales.double()).transpose(-1, -2) / 32**0.5
    expected = logits.softmax(-1) @ (values.double() * scales.double())
    tolerance = 1e-4 if dtype == torch.float32 else 1e-2
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    torch.testing.assert_close(weight.double(), logits.logsumexp(-1), rtol=0, atol=1e-3)
