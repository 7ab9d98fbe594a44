"""How much failure is borne, and what is done about a connection that hardly moves."""

from __future__ import annotations

import pytest
from faults import hang, reset, slow, status
from fetching import MB, SHARDS, asked, assert_whole, fetch

from llamakit.download import segments
from llamakit.download.responses import TransientError
from llamakit.download.retry import MAX_WAIT, RetryPolicy, retry
from llamakit.errors import DownloadError


def test_failures_are_counted_from_the_last_byte_gained(server, out):
    server.fault(reset(after=30_000), path=SHARDS, times=9)

    fetch(server, out, retry_policy=RetryPolicy(1, 0.01), connections=1)

    assert_whole(out, server.folder)
    assert [one.fault for one in server.requests].count("reset(30000)") == 9


def test_failures_without_a_byte_gained_end_when_patience_does(server, out):
    server.fault(reset(), path=SHARDS, times=99, skip=1)

    with pytest.raises(DownloadError, match=r"3 times in a row.*What is downloaded is kept"):
        fetch(server, out, retry_policy=RetryPolicy(2, 0.01), connections=1)

    assert len(asked(server)) == 3


def test_a_stall_in_each_request_is_borne_while_bytes_come(server, out):
    server.fault(hang(after=100_000), path=SHARDS, times=2)

    fetch(server, out, retry_policy=RetryPolicy(1, 0.01), connections=1, timeout=2.0)

    assert_whole(out, server.folder)


def test_no_retries_means_one_attempt(server, out):
    server.fault(status(500), path=SHARDS, skip=1)

    with pytest.raises(DownloadError, match=r"HTTP 500. What is downloaded is kept"):
        fetch(server, out, retry_policy=RetryPolicy(0), connections=1)

    assert len(asked(server)) == 1


def test_going_further_starts_the_count_again():
    reached = iter([0, 0, 0, 5, 5, 5, 5])

    def fails():
        raise TransientError("no")

    with pytest.raises(DownloadError, match="no \\(3 times in a row\\)"):
        list(retry(fails, RetryPolicy(2), lambda: next(reached)))
    assert list(reached) == [5]  # twice without progress, once with it, twice more without


def test_a_connection_that_crawls_does_not_hold_up_the_end(large, out, monkeypatch):
    monkeypatch.setattr(segments, "SLOW_AFTER_SECONDS", 0.5)
    monkeypatch.setattr(segments, "SLOW_BELOW", 0.9)  # of whatever this machine can do now
    large.fault(slow(100_000), path=SHARDS, skip=1)  # its segment would take 80 s

    fetch(large, out, connections=2)

    assert_whole(out, large.folder)
    crawling = next(one for one in large.requests if one.fault)
    assert crawling.nbytes < 4 * MB
    assert crawling.range in [(0, 8 * MB), (8 * MB, 16 * MB)]
    assert len(asked(large)) == 4


@pytest.mark.parametrize(("failures", "longest"), [(1, 1.0), (2, 2.0), (3, 4.0), (50, MAX_WAIT)])
def test_waits_double_up_to_a_limit_and_are_not_all_the_same(failures, longest):
    waits = [RetryPolicy().seconds(TransientError("no"), failures) for _ in range(1000)]

    assert longest / 2 <= min(waits) < 0.6 * longest
    assert 0.9 * longest < max(waits) <= longest
