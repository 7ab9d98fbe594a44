"""Prefixes that lost their slot: stored once, found again, within the memory for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_kit import Counting, collect, counting, random_tokens, request

from llamakit.api import Llama
from llamakit.runtime.cache_slots import CacheSlots
from llamakit.runtime.prefix_store import PAGE
from llamakit.runtime.scheduler import Scheduler

LENGTH = 512


@pytest.fixture(scope="module", params=[None, "int8"])
def llama(request: pytest.FixtureRequest, reference_cases: Path) -> Iterator[Llama]:
    folder = reference_cases / "gqa-mp1"
    with Llama.open(folder, max_seq_len=512, dtype="float32", kv_cache=request.param) as llama:
        yield llama


def scheduler(executor: Counting, pages: int, slots: int = 1) -> Scheduler:
    """Return a scheduler that stores so many pages."""
    page_nbytes = PAGE * position_nbytes(executor)
    cache = CacheSlots(executor, slots, LENGTH, stored_nbytes=pages * page_nbytes)
    return Scheduler(executor, slots, LENGTH, cache=cache)


def position_nbytes(executor: Counting) -> int:
    number = executor.open_cache(1, 1)
    nbytes = executor.position_nbytes(number)
    executor.close_cache(number)
    return nbytes


def answer(opened: Scheduler, tokens: list[int]) -> list[int]:
    """Have the prompt answered alone."""
    index = opened.submit(request(tokens, 4))
    events = []
    while not opened.idle:
        events += opened.step()
    return collect(events, index + 1)[0][index]


def test_more_dialogs_than_slots_find_their_turns_again(llama: Llama) -> None:
    executor = counting(llama)
    opened = scheduler(executor, pages=20)
    firsts = [random_tokens(200 + seed, seed) for seed in range(3)]
    turns = [[*first, *answer(opened, first), *random_tokens(9, 9)] for first in firsts]
    executor.batches.clear()

    found = [answer(opened, turn) for turn in turns]

    # of each turn what follows the third page; of the last, in the slot still, its end alone
    assert executor.computed <= sum(len(turn) - 3 * PAGE for turn in turns) + 3 * 3
    opened.close()
    assert executor._pages == {}
    assert found == [answer(Scheduler(executor, 1, LENGTH), turn) for turn in turns]


def test_what_dialogs_begin_with_is_stored_once(llama: Llama) -> None:
    executor = counting(llama)
    opened = scheduler(executor, pages=20)
    system = random_tokens(2 * PAGE)

    for seed in range(4):
        answer(opened, [*system, *random_tokens(PAGE, seed)])
    answer(opened, random_tokens(5, 9))

    assert len(executor._pages) == 2 + 4
    opened.close()


def test_the_least_recently_used_pages_make_room(llama: Llama) -> None:
    executor = counting(llama)
    opened = scheduler(executor, pages=5)
    one, two, three = (random_tokens(2 * PAGE + 5, seed) for seed in (1, 2, 3))
    for tokens in (one, two, one, three, random_tokens(5, 9)):
        answer(opened, tokens)
    assert len(executor._pages) <= 5
    executor.batches.clear()

    answer(opened, one)
    of_one = executor.computed
    answer(opened, two)

    assert of_one == 5 + 3
    assert executor.computed - of_one > PAGE
    assert len(executor._pages) <= 5
    opened.close()


def test_room_is_made_before_pages_are_stored(
    llama: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = counting(llama)
    opened = scheduler(executor, pages=3)
    counts: list[int] = []
    monkeypatch.setattr(executor, "save_page", counted(executor, counts))

    for seed in range(3):
        answer(opened, random_tokens(3 * PAGE, seed))
    opened.close()

    assert max(counts) == 3


def counted(executor: Counting, counts: list[int]) -> Callable[..., int]:
    """Return the executor's ``save_page``, which notes how many pages there are then."""
    save = executor.save_page

    def save_page(*args: int) -> int:
        number = save(*args)
        counts.append(len(executor._pages))
        return number

    return save_page


def test_nothing_is_stored_that_does_not_fit(llama: Llama) -> None:
    executor = counting(llama)
    opened = scheduler(executor, pages=0)

    for seed in (1, 2):
        answer(opened, random_tokens(200, seed))

    assert executor._pages == {}


def test_a_stored_prefix_goes_to_a_row_among_others(llama: Llama) -> None:
    executor = counting(llama)
    opened = scheduler(executor, pages=20, slots=2)
    prompts = [random_tokens(150 + seed, seed) for seed in range(5)]
    alone = [answer(Scheduler(executor, 1, LENGTH), tokens) for tokens in prompts]
    for tokens in prompts:
        answer(opened, tokens)
    executor.batches.clear()

    indexes = [opened.submit(request(tokens, 4)) for tokens in prompts]
    events = []
    while not opened.idle:
        events += opened.step()

    tokens, _ = collect(events, indexes[-1] + 1)
    assert tokens[indexes[0] :] == alone
    assert executor.computed < 5 * 100
    opened.close()


def test_every_rank_stores_its_part(reference_cases: Path) -> None:
    folder = reference_cases / "gqa-mp1"
    with Llama.open(folder, max_seq_len=512, dtype="float32", model_parallel_size=2) as llama:
        engine = llama.engine(prefix_cache=1 << 24)
        prompts = [random_tokens(150 + seed, seed) for seed in range(5)]

        found = [
            [[event.token for event in engine.submit(request(tokens, 4))] for tokens in prompts]
            for _ in range(2)
        ]

        engine.close()
    assert found[0] == found[1]


def test_a_prompt_that_takes_nothing_from_the_cache_leaves_other_slots_alone(llama: Llama) -> None:
    tokens = random_tokens(PAGE)
    cache = CacheSlots(llama._executor, 2, LENGTH)
    cache.forward(0, [tokens])

    cache.place(tokens, 1, taken=set(), most=0)

    assert cache.held == [tokens, []]
    cache.close()
