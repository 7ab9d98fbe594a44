"""Prompts: in chunks, several at once, and never twice what the cache holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_kit import answers, collect, counting, random_tokens, request

from llamakit.api import Llama
from llamakit.runtime.scheduler import CPU_PIECE, Scheduler


@pytest.fixture(scope="module")
def llama(reference_cases: Path) -> Llama:
    return Llama.build(str(reference_cases / "gqa-mp1"), max_seq_len=512, dtype="float32")


def close_to(logprobs: list[list[float]]) -> list[object]:
    return [pytest.approx(row, abs=1e-4) for row in logprobs]


def test_a_long_prompt_in_chunks_is_answered_as_in_one_piece(llama: Llama) -> None:
    executor = counting(llama)
    asked = [request(random_tokens(300), 6)]

    whole = answers(executor, asked)
    executor.batches.clear()
    chunked = answers(executor, asked, chunk=64)

    assert chunked[0] == whole[0]
    assert chunked[1] == close_to(whole[1])
    widths = [len(batch.tokens[0]) for batch in executor.batches]
    assert widths == [64, 64, 64, 64, 44, *[1] * 5]


def test_prompt_logprobs_are_the_same_in_chunks(llama: Llama) -> None:
    asked = [request(random_tokens(100), 1, prompt_logprobs=True, top=3)]
    executor = counting(llama)

    (whole,) = Scheduler(executor, 1, 128).run(asked)
    (chunked,) = Scheduler(executor, 1, 128, chunk=32).run(asked)

    assert whole.prompt_logprobs is not None
    assert len(whole.prompt_logprobs) == 100
    assert chunked.prompt_logprobs == pytest.approx(whole.prompt_logprobs, abs=1e-4)
    assert whole.prompt_top[0] == ()
    assert [len(top) for top in whole.prompt_top[1:]] == [3] * 99
    for one, other in zip(whole.prompt_top, chunked.prompt_top, strict=True):
        assert [it for _, it in one] == pytest.approx([it for _, it in other], abs=1e-4)


def test_rows_continue_decoding_while_a_long_prompt_is_computed(llama: Llama) -> None:
    generator = Scheduler(counting(llama), 2, 512, chunk=32)
    generator.submit(request(random_tokens(5), 40))
    generator.step()
    generator.submit(request(random_tokens(320), 2))

    events = [event for _ in range(10) for event in generator.step()]

    assert [event.index for event in events] == [0] * 10 + [1]


def test_a_step_of_rows_that_decode_waits_for_one_piece_of_other_prompts(llama: Llama) -> None:
    executor = counting(llama)
    generator = Scheduler(executor, 4, 512)
    alone = generator.submit(request(random_tokens(300), 40))
    generator.step()
    assert max(map(len, executor.batches[-1].tokens)) == 300
    for seed in range(3):
        generator.submit(request(random_tokens(200, seed), 20))

    steps = []
    while not generator.idle:
        before = len(executor.batches)
        events = generator.step()
        steps.append((executor.batches[before:], {event.index for event in events}))

    assert all(alone in indexes for _, indexes in steps[:39])
    busy = [batch for batches, indexes in steps if alone in indexes for batch in batches]
    assert max(len(row) for batch in busy for row in batch.tokens) == CPU_PIECE


def test_short_prompts_overtake_those_that_wait_behind_a_long_one(llama: Llama) -> None:
    generator = Scheduler(counting(llama), 4, 512, chunk=32)
    for tokens in (
        random_tokens(320),
        random_tokens(300, seed=1),
        random_tokens(5, seed=2),
        random_tokens(6, seed=3),
    ):
        generator.submit(request(tokens, 3))

    order = list(dict.fromkeys(event.index for event in generator.run()))

    assert order == [2, 3, 0, 1]


def test_overtaking_and_leaving_change_no_answer(llama: Llama) -> None:
    asked = [
        request(random_tokens(length, seed=length), new, temperature=0.8)
        for length, new in ((9, 3), (200, 5), (4, 20), (150, 2), (90, 9), (7, 1), (30, 12))
    ]
    executor = counting(llama)

    alone = [answers(executor, [it]) for it in asked]
    crowd = answers(executor, asked, slots=3, chunk=32)

    assert crowd[0] == [tokens[0] for tokens, _ in alone]
    assert crowd[1] == close_to([logprobs[0] for _, logprobs in alone])


def test_short_prompts_are_computed_in_one_pass(llama: Llama) -> None:
    executor = counting(llama)
    asked = [request(random_tokens(length, seed=length), 2) for length in (5, 9, 7, 6)]

    answers(executor, asked)

    assert executor.rows[0] == 4
    assert executor.batches[0].lengths == (5, 9, 7, 6)


def test_prompts_of_very_different_lengths_are_not_padded(llama: Llama) -> None:
    executor = counting(llama)
    asked = [request(random_tokens(length, seed=length), 2) for length in (5, 90)]

    answers(executor, asked)

    assert len(executor.batches[0].tokens[0]) == 5


def test_prompts_that_begin_alike_are_computed_once(llama: Llama) -> None:
    executor = counting(llama)
    system = random_tokens(100)
    asked = [request([*system, *random_tokens(9, seed=seed)[1:]], 3) for seed in range(1, 6)]
    alone = [answers(executor, [it]) for it in asked]
    executor.batches.clear()

    together = answers(executor, asked, slots=5)

    assert together[0] == [tokens[0] for tokens, _ in alone]
    assert together[1] == close_to([logprobs[0] for _, logprobs in alone])
    assert executor.computed == 108 + 4 * 8 + 5 * 2


def test_the_next_turn_of_a_dialog_has_only_its_end_computed(llama: Llama) -> None:
    executor = counting(llama)
    first = random_tokens(60)
    (answer,), _ = llama.generate([first], max_gen_len=10, temperature=0)
    second = [*first, *answer, *random_tokens(12, seed=2)]
    executor.batches.clear()

    reused = llama.generate([second], max_gen_len=6, temperature=0, logprobs=True)

    # of the first answer all but the last token is in the cache; the last of the second is not fed
    assert executor.computed == 1 + 12 + 5
    llama.forget()
    executor.batches.clear()
    afresh = llama.generate([second], max_gen_len=6, temperature=0, logprobs=True)
    assert executor.computed == len(second) + 5
    assert reused[0] == afresh[0]
    assert reused[1] is not None
    assert afresh[1] is not None
    assert reused[1][0] == pytest.approx(afresh[1][0], abs=1e-4)


def test_a_turn_that_is_edited_is_computed_from_the_edit_on(llama: Llama) -> None:
    executor = counting(llama)
    llama.generate([[*random_tokens(60), 400, *random_tokens(9)]], max_gen_len=10, temperature=0)
    edited = [*random_tokens(60), 500, *random_tokens(9)]
    executor.batches.clear()

    reused, _ = llama.generate([edited], max_gen_len=6, temperature=0)

    assert executor.computed == 10 + 5
    llama.forget()
    assert llama.generate([edited], max_gen_len=6, temperature=0)[0] == reused


def test_the_same_prompt_again_has_its_last_id_computed_only(llama: Llama) -> None:
    executor = counting(llama)
    first, _ = llama.generate([random_tokens(60)], max_gen_len=10, temperature=0)
    executor.batches.clear()

    again, _ = llama.generate([random_tokens(60)], max_gen_len=10, temperature=0)

    assert again == first
    assert executor.computed == 10


def test_several_dialogs_find_their_own_turns_again(llama: Llama) -> None:
    executor = counting(llama)
    firsts = [random_tokens(40 + seed, seed=seed) for seed in range(4)]
    found, _ = llama.generate(firsts, max_gen_len=8, temperature=0)
    seconds = [[*a, *b, *random_tokens(5, seed=9)] for a, b in zip(firsts, found, strict=True)]
    executor.batches.clear()

    reused, _ = llama.generate(list(reversed(seconds)), max_gen_len=4, temperature=0)

    assert executor.computed == 4 * (1 + 5 + 3)
    llama.forget()
    afresh, _ = llama.generate(list(reversed(seconds)), max_gen_len=4, temperature=0)
    assert reused == afresh


def test_a_new_prompt_does_not_push_out_what_another_one_shares(llama: Llama) -> None:
    executor = counting(llama)
    first, _ = llama.generate(
        [random_tokens(60), random_tokens(70, seed=1)], max_gen_len=8, temperature=0
    )
    turn = [*random_tokens(60), *first[0], 7]
    executor.batches.clear()

    llama.generate([random_tokens(9, seed=5), turn], max_gen_len=1, temperature=0)

    assert executor.computed == 8 + 2  # all prompts begin with the same id


def test_an_answer_that_was_interrupted_is_gone_on_with(llama: Llama) -> None:
    executor = counting(llama)
    chunks = llama.stream([random_tokens(50)], temperature=0, max_new_tokens=20)
    written = [next(chunks).token for _ in range(5)]
    chunks.close()
    executor.batches.clear()

    llama.generate([[*random_tokens(50), *written, 7]], max_gen_len=1, temperature=0)

    assert executor.computed == 2


def test_two_answers_at_the_same_time_do_not_disturb_one_another(llama: Llama) -> None:
    counting(llama)
    alone = [llama.generate([random_tokens(20, seed)], 8, temperature=0)[0][0] for seed in (1, 2)]

    one, two = (
        llama.stream([random_tokens(20, seed)], temperature=0, max_new_tokens=8) for seed in (1, 2)
    )
    mixed = [(a.token, b.token) for a, b in zip(one, two, strict=True)]

    assert [list(tokens) for tokens in zip(*mixed, strict=True)] == alone


def test_what_is_kept_is_no_larger_than_a_call_needed(llama: Llama) -> None:
    executor = counting(llama)

    llama.generate([random_tokens(8, seed) for seed in range(4)], max_gen_len=4, temperature=0)
    llama.generate([random_tokens(200)], max_gen_len=4, temperature=0)

    (cache,) = executor._caches.values()
    assert (cache.slots, cache.length) == (1, 204)
    llama.forget()
    assert executor._caches == {}


def test_a_request_may_join_and_leave_between_steps(llama: Llama) -> None:
    executor = counting(llama)
    late = request(random_tokens(9, seed=4), 6, temperature=0.9, seed=3)
    alone = answers(executor, [late])
    generator = Scheduler(executor, 3, 64)
    for seed in (1, 2):
        generator.submit(request(random_tokens(7, seed=seed), 30))
    events = generator.step()

    index = generator.submit(late)
    generator.cancel(0)
    while not any(event.index == index and event.finish for event in events):
        events += generator.step()

    tokens, logprobs = collect(events, 3)
    assert tokens[index] == alone[0][0]
    assert logprobs[index] == pytest.approx(alone[1][0], abs=1e-4)


def test_a_row_that_was_paused_continues_from_what_the_cache_holds_of_it(llama: Llama) -> None:
    executor, prompt = counting(llama), random_tokens(8)
    (expected,), _ = llama.generate([prompt], max_gen_len=20, temperature=0)
    scheduler = Scheduler(executor, slots=2, length=64)
    index = scheduler.submit(request(prompt, 20))
    for _ in range(15):
        scheduler.step()
    row = scheduler.pause(index)
    assert row is not None
    computed = executor.computed

    scheduler.resume(row)
    scheduler.step()

    assert executor.computed - computed == 1
    while not scheduler.idle:
        scheduler.step()
    assert row.tokens[len(prompt) :] == expected


def test_a_row_whose_prompt_was_scored_is_paused_too_and_scores_it_once(llama: Llama) -> None:
    executor, prompt = counting(llama), random_tokens(8)
    (expected,), _ = llama.generate([prompt], max_gen_len=20, temperature=0)
    scheduler = Scheduler(executor, slots=2, length=64)
    index = scheduler.submit(request(prompt, 20, prompt_logprobs=True))
    (first,) = scheduler.step()
    row = scheduler.pause(index)
    assert row is not None

    scheduler.resume(row)
    events = [first]
    while not scheduler.idle:
        events += scheduler.step()

    assert [event.token for event in events] == expected
    assert [len(event.prompt_logprobs or ()) for event in events] == [len(prompt), *[0] * 19]


def test_a_row_whose_positions_are_observed_is_not_paused(llama: Llama) -> None:
    scheduler = Scheduler(counting(llama), slots=2, length=64)
    index = scheduler.submit(
        request(random_tokens(8), 20, observers=llama.observers(["embedding"]))
    )
    scheduler.step()

    assert scheduler.pause(index) is None
