"""A queue that serves whoever asks in turn."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamakit.runtime.fair_queue import FairQueue


def test_clients_take_turns_and_each_is_served_in_its_order() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.put(item[0], item)

    found = [queue.pop() for _ in range(len(queue))]

    assert found == ["a1", "b1", "c1", "a2", "b2", "a3"]
    with pytest.raises(IndexError):
        queue.pop()


def test_what_is_removed_is_not_served() -> None:
    queue: FairQueue[int] = FairQueue()
    queue.put("a", 1)
    queue.put("b", 2)

    assert queue.remove("a", 1)
    assert not queue.remove("a", 1)
    assert list(queue) == [2]
    assert queue.pop() == 2
    assert not queue


def test_the_newest_item_is_that_of_the_client_with_the_most() -> None:
    queue: FairQueue[int] = FairQueue()
    for client, item in ("a", 1), ("b", 2), ("b", 3), ("a", 4), ("b", 5):
        queue.put(client, item)

    assert [queue.pop_newest() for _ in range(5)] == [5, 4, 3, 1, 2]
    with pytest.raises(IndexError):
        queue.pop_newest()


@given(st.lists(st.integers(0, 3), max_size=40))
def test_all_are_served_once_and_nobody_waits_for_two_of_anothers(clients: list[int]) -> None:
    queue: FairQueue[tuple[int, int]] = FairQueue()
    for number, client in enumerate(clients):
        queue.put(client, (client, number))

    served = [queue.pop() for _ in clients]

    assert sorted(number for _, number in served) == list(range(len(clients)))
    for client in set(clients):
        mine = [at for at, (who, _) in enumerate(served) if who == client]
        for before, after in itertools.pairwise(mine):
            between = [who for who, _ in served[before + 1 : after]]
            assert len(between) == len(set(between))
