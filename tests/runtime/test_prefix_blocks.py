"""A prefix that several rows share: in memory once, read once a step, and the same answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from engine_kit import Counting, answers, collect, counting, random_tokens, request
from torch.utils._python_dispatch import TorchDispatchMode

from llamakit.api import Llama
from llamakit.runtime import prefix_blocks
from llamakit.runtime.cache_slots import CacheSlots
from llamakit.runtime.prefix_store import PAGE
from llamakit.runtime.scheduler import Scheduler

LENGTH = 512
COMMON = 4 * PAGE


@pytest.fixture(autouse=True)
def any_prefix_is_worth_sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_blocks, "WORTH_SHARING", 1)


@pytest.fixture(scope="module", params=[None, "int8"])
def llama(request: pytest.FixtureRequest, reference_cases: Path) -> Iterator[Llama]:
    folder = reference_cases / "gqa-mp1"
    with Llama.open(folder, max_seq_len=512, dtype="float32", kv_cache=request.param) as llama:
        yield llama


@pytest.fixture(scope="module")
def exact(reference_cases: Path) -> Iterator[Llama]:
    """Whose positions of one head fill pages of memory."""
    with Llama.open(reference_cases / "gqa-mp1", max_seq_len=512, dtype="float32") as llama:
        yield llama


def prompts(count: int, common: int = COMMON) -> list[list[int]]:
    """Return prompts that begin alike and end in different ways."""
    return [[*random_tokens(common), *random_tokens(5 + 3 * seed, seed)] for seed in range(count)]


def decoding(executor: Counting, asked: Sequence[Sequence[int]], new: int = 40) -> Scheduler:
    """Return a scheduler whose rows have all begun to decode."""
    opened = Scheduler(executor, len(asked), LENGTH)
    for tokens in asked:
        opened.submit(request(tokens, new))
    while opened._waiting or opened._loading:
        opened.step()
    return opened


class KeysRead(TorchDispatchMode):
    """Counts the keys, in positions of all heads and rows, that attention is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._overloadpacket is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
            self.numel += args[1].numel()
        return func(*args, **(kwargs or {}))


def test_eight_rows_have_their_prefix_in_memory_once(exact: Llama) -> None:
    executor = counting(exact)
    opened = decoding(executor, prompts(8))

    (cache,) = executor._caches.values()

    written = cache.keys[0, :, 0, :COMMON].ne(0).any(-1).sum(-1).tolist()
    assert written == [0] * 8 + [0] * 3 + [COMMON]
    opened.close()


def test_the_prefix_of_eight_rows_is_read_once_a_step(llama: Llama) -> None:
    executor = counting(llama)
    opened = decoding(executor, prompts(8))
    (cache,) = executor._caches.values()
    longest = max(map(len, opened._cache.held)) + 1

    with KeysRead() as read:
        opened.step()

    position = cache.keys[:, 0, :, 0].numel()
    assert read.numel <= position * (COMMON + 8 * (longest - COMMON))
    opened.close()


@pytest.mark.parametrize("chunk", [64, 512])
def test_sharing_changes_no_answer(
    llama: Llama, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = counting(llama)
    asked = [request(tokens, 6 + 5 * row) for row, tokens in enumerate(prompts(5))]
    asked += [request(tokens, 9) for tokens in prompts(3, COMMON // 2)]
    asked += [request(random_tokens(30, 5), 20), request(random_tokens(30, 6), 20)]

    shared = answers(executor, asked, slots=6, chunk=chunk)

    assert any(batch.prefixes for batch in executor.batches)
    monkeypatch.setattr(prefix_blocks, "WORTH_SHARING", 1 << 40)
    executor.batches.clear()
    apart = answers(executor, asked, slots=6, chunk=chunk)
    assert not any(batch.prefixes for batch in executor.batches)
    assert shared[0] == apart[0]
    assert shared[1] == [pytest.approx(row, abs=2e-3) for row in apart[1]]


def test_drafts_are_checked_against_a_shared_prefix(reference_cases: Path) -> None:
    with Llama.open(reference_cases / "gqa-mp1", max_seq_len=512, dtype="float32") as llama:
        asked = [[1, *[300, 301, 302, 303] * 50, *tail] for tail in ([], [7], [8, 9])]
        plain = llama.generate(asked, 20, temperature=0)[0]
        llama.forget()
        executor = counting(llama)

        drafted: list[list[int]] = [[] for _ in asked]
        for it in llama.stream(asked, temperature=0, max_new_tokens=20, draft="prompt-lookup"):
            if it.token is not None:
                drafted[it.index].append(it.token)

        assert drafted == plain
        wide = [it for it in executor.batches if it.prefixes and len(it.tokens[0]) > 1]
        assert any(len(it.tokens) > 1 for it in wide)


def test_every_rank_shares_its_part(reference_cases: Path) -> None:
    asked = prompts(3)
    with Llama.open(reference_cases / "gqa-mp1", max_seq_len=512, dtype="float32") as llama:
        expected = llama.generate(asked, 8, temperature=0)
    folder = reference_cases / "gqa-mp1"
    with Llama.open(folder, max_seq_len=512, dtype="float32", model_parallel_size=2) as llama:
        assert llama.generate(asked, 8, temperature=0) == expected


def test_a_block_is_freed_with_the_last_slot_that_refers_to_it(exact: Llama) -> None:
    executor = counting(exact)
    opened = decoding(executor, prompts(2), new=2)
    while not opened.idle:
        opened.step()
    (cache,) = executor._caches.values()
    assert cache.keys[:, 2].any()

    for seed in range(4):
        opened.submit(request(random_tokens(PAGE, 20 + seed), 3))
    while not opened.idle:
        opened.step()

    assert not cache.keys[:, 2].any()
    opened.close()


def test_a_prefix_in_a_block_is_stored_when_its_slots_are_lost(llama: Llama) -> None:
    executor = counting(llama)
    cache = CacheSlots(executor, 2, LENGTH, stored_nbytes=1 << 24)
    opened = Scheduler(executor, 2, LENGTH, cache=cache)
    asked = prompts(2)
    others = [random_tokens(200, 30 + seed) for seed in range(4)]

    found = [together(opened, asked), together(opened, others)]
    executor.batches.clear()
    again = together(opened, asked)

    assert again == found[0]
    assert executor.computed <= sum(len(tokens) - COMMON for tokens in asked) + 2 * 3 + COMMON
    opened.close()


def together(opened: Scheduler, asked: Sequence[Sequence[int]]) -> list[list[int]]:
    """Have all prompts answered in one scheduler."""
    indexes = [opened.submit(request(tokens, 4)) for tokens in asked]
    events = []
    while not opened.idle:
        events += opened.step()
    return collect(events, indexes[-1] + 1)[0][indexes[0] :]


def test_a_larger_cache_keeps_what_slots_shared(llama: Llama) -> None:
    executor = counting(llama)
    asked = prompts(2)
    found, _ = llama.generate(asked, 4, temperature=0)
    turns = [[*tokens, *answer] for tokens, answer in zip(asked, found, strict=True)]
    executor.batches.clear()

    longer, _ = llama.generate(turns, 30, temperature=0)

    assert executor.computed == 2 * 30
    llama.forget()
    assert llama.generate(turns, 30, temperature=0)[0] == longer


def test_what_slots_refer_to_follows_them(llama: Llama) -> None:
    """Whatever is copied, swapped and cut: each slot reads what it holds."""
    executor = counting(llama)
    slots = CacheSlots(executor, 4, LENGTH)
    one, two = (random_tokens(3 * PAGE + 9, seed) for seed in (1, 2))
    slots.forward(0, [one])
    slots.place([*one[: 2 * PAGE + 20], 7, 8], 1, {0}, LENGTH)
    slots.forward(2, [two])
    slots.swap(1, 2)
    slots.swap(0, 3)
    slots.place([*two, 9], 0, {1, 2, 3}, LENGTH)
    slots.truncate(3, PAGE + 30)
    slots.copy(3, 1, PAGE + 10)

    logits, batch = slots.forward(0, [[5], [5], [5], [5]])

    assert [length for _, length in batch.prefixes] == [3 * PAGE, PAGE, 2 * PAGE, PAGE]
    for held, of_slot in zip(slots.held, logits, strict=True):
        fresh = CacheSlots(executor, 1, LENGTH)
        expected, _ = fresh.forward(0, [held])
        fresh.close()
        torch.testing.assert_close(of_slot, expected[0], rtol=1e-2, atol=2e-2)
    slots.close()
