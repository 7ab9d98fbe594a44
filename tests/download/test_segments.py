"""Every byte is passed out exactly once at a time, and none is forgotten."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamakit.download.segments import MIN_SEGMENT_NBYTES, Schedule, Segment

ALIGN = 256 << 10
MB = 1 << 20


def covered(segments):
    """Return the ranges of segments put together, in order."""
    joined = []
    for start, stop in sorted((one.start, one.stop) for one in segments):
        if joined and joined[-1][1] == start:
            joined[-1] = joined[-1][0], stop
        else:
            joined.append((start, stop))
    return joined


def claim_all(schedule):
    claimed = []
    while (segment := schedule.claim()) is not None:
        segment.position = segment.stop  # what is fetched at once is not taken over
        claimed.append(segment)
    return claimed


def test_each_connection_gets_a_file_of_its_own_while_there_are_enough():
    schedule = Schedule(4, ALIGN)
    for name in "abcd":
        schedule.add(name, 100 * MB, [(0, 100 * MB)])

    claimed = [schedule.claim() for _ in range(4)]

    assert sorted(one.target for one in claimed) == list("abcd")
    assert {(one.start, one.stop) for one in claimed} == {(0, 100 * MB)}


def test_a_shard_of_405b_takes_no_request_of_more_than_27_gb():
    nbytes = 101_470_976_045
    schedule = Schedule(8, ALIGN)
    for rank in range(8):
        schedule.add(rank, nbytes, [(0, nbytes)])

    claimed = claim_all(schedule)

    assert max(one.stop - one.start for one in claimed) <= 27_000_000_000
    for rank in range(8):
        assert covered(one for one in claimed if one.target == rank) == [(0, nbytes)]


def test_connections_that_share_a_file_take_it_in_order_in_a_few_large_pieces():
    schedule = Schedule(8, ALIGN)
    schedule.add("a", 100 * MB, [(0, 100 * MB)])

    claimed = claim_all(schedule)

    assert [one.start for one in claimed] == sorted(one.start for one in claimed)
    assert covered(claimed) == [(0, 100 * MB)]
    assert all(one.stop - one.start >= MIN_SEGMENT_NBYTES for one in claimed[:-1])


def test_a_large_file_takes_no_more_than_a_few_dozen_requests():
    nbytes = 17_246_706_245
    schedule = Schedule(8, ALIGN)
    schedule.add("a", nbytes, [(0, nbytes)])

    claimed = claim_all(schedule)

    assert covered(claimed) == [(0, nbytes)]
    assert len(claimed) <= 70


def test_only_the_gaps_are_assigned():
    gaps = [(ALIGN, 3 * ALIGN), (9 * MB, 40 * MB)]
    schedule = Schedule(2, ALIGN)
    schedule.add("a", 40 * MB, gaps)

    assert covered(claim_all(schedule)) == gaps


def test_what_is_left_of_a_segment_is_assigned_again_from_its_last_whole_block():
    schedule = Schedule(1, ALIGN)
    schedule.add("a", 10 * MB, [(0, 10 * MB)])
    segment = schedule.claim()
    segment.position = 3 * ALIGN + 17

    schedule.release(segment)
    again = schedule.claim()

    assert (again.start, again.stop) == (3 * ALIGN, 10 * MB)


def test_a_free_connection_takes_over_half_of_the_longest_rest():
    schedule = Schedule(1, ALIGN)
    schedule.add("a", 100 * MB, [(0, 100 * MB)])
    first = schedule.claim()
    first.position = 20 * MB

    second = schedule.claim()

    assert (first.stop, second.start, second.stop) == (60 * MB, 60 * MB, 100 * MB)


def test_halves_of_eight_mib_are_worth_a_request():
    schedule = Schedule(1, ALIGN)
    schedule.add("a", 100 * MB, [(0, 100 * MB)])
    schedule.claim().position = 84 * MB

    assert schedule.claim().start == 92 * MB


def test_a_shorter_rest_is_not_worth_a_request():
    schedule = Schedule(1, ALIGN)
    schedule.add("a", 100 * MB, [(0, 100 * MB)])
    schedule.claim().position = 84 * MB + 1

    assert schedule.claim() is None
    assert schedule.is_busy()
    assert not schedule.is_empty()


class Clock:
    """Time that passes only when it is told to."""

    now = 0.0

    def __call__(self):
        return self.now


def test_the_speed_of_a_segment_is_that_of_its_own_bytes():
    segment = Segment("a", 5, 20, began=1.0)
    segment.position = 12

    assert segment.speed(3.0) == 3.5


def crawl(seconds, *, fast, slow):
    """Let one of two connections end, and the other have come so far, in bytes a second."""
    clock = Clock()
    schedule = Schedule(2, ALIGN, clock)
    schedule.add("a", 16 * MB, [(0, 16 * MB)])
    first, second = schedule.claim(), schedule.claim()
    clock.now = 8 * MB / fast
    first.position = first.stop
    schedule.release(first)
    clock.now = max(clock.now, seconds)
    second.position = second.start + int(slow * clock.now)
    return schedule, second


def test_what_is_left_of_a_connection_that_crawls_is_taken_over_but_for_two_blocks():
    schedule, slow = crawl(11, fast=4 * MB, slow=100_000)

    taken = schedule.claim()

    assert slow.position + ALIGN < slow.stop == taken.start <= slow.position + 2 * ALIGN
    assert taken.stop == 16 * MB
    assert schedule.claim() is None  # the new one may be quick


@pytest.mark.parametrize(
    ("seconds", "fast", "slow"),
    [(9, 4 * MB, 100_000), (11, 750_000, 100_000), (80, 4 * MB, 100_000)],
    ids=["too early to tell", "all are slow", "it has nearly done"],
)
def test_no_request_is_spent_on_one_that_does_not_crawl(seconds, fast, slow):
    schedule, _ = crawl(seconds, fast=fast, slow=slow)

    assert schedule.claim() is None


def test_a_file_for_one_connection_is_not_shared_and_begins_again():
    schedule = Schedule(8, ALIGN)
    schedule.add("a", 100 * MB, [(0, 100 * MB)], in_one=True)
    segment = schedule.claim()
    segment.position = 50 * MB

    assert schedule.claim() is None
    schedule.release(segment)
    again = schedule.claim()
    assert (again.start, again.stop) == (0, 100 * MB)


def test_a_file_that_is_dropped_ends_its_segments_and_comes_back_no_more():
    schedule = Schedule(1, ALIGN)
    schedule.add("a", 10 * MB, [(0, 10 * MB)])
    segment = schedule.claim()
    segment.position = MB

    schedule.drop("a")
    schedule.release(segment)

    assert segment.is_done
    assert schedule.is_empty()


def test_a_late_failure_of_an_old_segment_does_not_drop_a_file_that_was_added_again():
    schedule = Schedule(2, ALIGN)
    schedule.add("a", 20 * MB, [(0, 20 * MB)])
    early, late = schedule.claim(), schedule.claim()
    schedule.drop_with(early)
    schedule.add("a", 30 * MB, [(0, 30 * MB)])

    schedule.drop_with(late)
    schedule.release(late)

    assert covered(claim_all(schedule)) == [(0, 30 * MB)]


@given(
    sizes=st.lists(st.integers(1, 80 * MB), min_size=1, max_size=4),
    connections=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_every_byte_is_fetched_once_whatever_the_order(sizes, connections, seed):
    chance = random.Random(seed)
    schedule = Schedule(connections, ALIGN)
    for name, nbytes in enumerate(sizes):
        schedule.add(name, nbytes, [(0, nbytes)])
    running, fetched, lost = [], {name: [] for name in range(len(sizes))}, 0

    while not schedule.is_empty():
        if len(running) < connections and (segment := schedule.claim()):
            assert segment.start % ALIGN == 0
            running.append(segment)
            continue
        segment = chance.choice(running)
        segment.position = min(segment.stop, segment.position + chance.randrange(1, 20 * MB))
        if segment.is_done or chance.random() < 0.1:
            kept = segment.stop if segment.is_done else segment.position // ALIGN * ALIGN
            lost += segment.position - kept
            fetched[segment.target].append((segment.start, kept))
            running.remove(segment)
            schedule.release(segment)

    for name, nbytes in enumerate(sizes):
        pieces = sorted(piece for piece in fetched[name] if piece[0] < piece[1])
        assert [start for start, _ in pieces] == [0, *(stop for _, stop in pieces[:-1])]
        assert pieces[-1][1] == nbytes
    assert lost >= 0


@pytest.mark.parametrize("connections", [1, 8])
def test_an_empty_file_needs_no_request(connections):
    schedule = Schedule(connections, ALIGN)
    schedule.add("a", 0, [])

    assert schedule.claim() is None
    assert schedule.is_empty()
