"""Requests are few, in time and not too fast: a signed link is good for a number of them."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from faults import corrupt, status
from fetching import MB, MODEL, SHARDED, SHARDS, asked, assert_whole, fetch, files_in, steps

from llamakit.download.events import Arrived, Checked, Planned, Retrying
from llamakit.download.fetcher import DownloadSettings
from llamakit.download.link import read_link
from llamakit.download.rate_limit import read_rate
from llamakit.download.session import Download
from llamakit.errors import DamagedFileError, OptionError

SHARD = "llama-2-7b/consolidated.00.pth"


def test_a_file_costs_one_request_and_a_shard_a_probe_and_its_segments(large, out):
    fetch(large, out, connections=4)

    counts = Counter(one.path.lstrip("/") for one in large.requests)
    assert counts.pop(SHARD) == 1 + 3
    assert set(counts.values()) == {1}
    assert sorted(asked(large)) == [(0, 8 * MB), (8 * MB, 16 * MB), (16 * MB, 20 * MB + 12_345)]
    assert {one.method for one in large.requests} == {"GET"}
    assert large.nbytes == sum((out / name).stat().st_size for name in files_in(out)) + 1


def test_as_many_shards_as_connections_cost_one_request_each(sharded, out):
    fetch(sharded, out, model=SHARDED, connections=8)

    assert len(asked(sharded)) == 8
    assert sharded.most_connections <= 8 + 1


def test_no_more_connections_than_were_allowed_are_open(large, out):
    large.rate = 20 * MB

    fetch(large, out, connections=2)

    assert_whole(out, large.folder)
    assert large.most_connections <= 2 + 1  # a connection whose probe is over may still close


def test_no_request_at_all_where_everything_is_there(server, out):
    fetch(server, out)
    before = len(server.requests)

    events = fetch(server, out)

    assert len(server.requests) == before
    assert all(event.good for event in events if isinstance(event, Checked))
    assert_whole(out, server.folder)


def test_only_what_is_missing_is_asked_for(sharded, out):
    fetch(sharded, out, model=SHARDED)
    (out / "llama-2-70b" / "consolidated.05.pth").unlink()
    (out / "LICENSE").unlink()
    before = len(sharded.requests)

    fetch(sharded, out, model=SHARDED)

    assert_whole(out, sharded.folder)
    new = [one.path for one in sharded.requests[before:]]
    assert new == [
        "/llama-2-70b/consolidated.05.pth",
        "/LICENSE",
        "/llama-2-70b/consolidated.05.pth",
    ]


def test_one_bad_shard_of_eight_is_fetched_again_alone(sharded, out):
    fetch(sharded, out, model=SHARDED)
    bad = out / "llama-2-70b" / "consolidated.03.pth"
    bad.write_bytes(b"!" + bad.read_bytes()[1:])
    before = len(sharded.requests)

    with pytest.raises(DamagedFileError, match=r"consolidated\.03\.pth.*repair=True"):
        fetch(sharded, out, model=SHARDED)
    assert len(sharded.requests) == before
    fetch(sharded, out, model=SHARDED, repair=True)

    assert_whole(out, sharded.folder)
    assert {one.path for one in sharded.requests[before:]} == {"/llama-2-70b/consolidated.03.pth"}
    assert len(sharded.requests) == before + 2


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Login</title>", b""])
def test_a_page_or_nothing_under_the_name_of_a_file_is_replaced_without_asking(server, out, page):
    fetch(server, out)
    for name in (SHARD, "LICENSE", "llama-2-7b/checklist.chk", "tokenizer.model"):
        (out / name).write_bytes(page)

    fetch(server, out)

    assert_whole(out, server.folder)


def test_what_was_verified_is_not_read_again_while_something_is_missing(sharded, out):
    sharded.fault(corrupt(5), path="*/consolidated.07.pth", times=9)
    with pytest.raises(DamagedFileError):
        fetch(sharded, out, model=SHARDED)
    right = out / "llama-2-70b" / "consolidated.00.pth"
    stamp = right.stat()
    right.write_bytes(b"!" + right.read_bytes()[1:])  # the same size, but another time

    events = []
    with pytest.raises(DamagedFileError):
        events.extend(steps(sharded, out, model=SHARDED))

    assert right.stat().st_size == stamp.st_size
    assert [one.path for one in events if isinstance(one, Checked) and not one.good] == [
        "llama-2-70b/consolidated.00.pth"
    ]


@pytest.mark.parametrize("code", [429, 503])
def test_a_server_that_asks_to_wait_is_not_asked_before(server, out, code):
    server.fault(status(code, retry_after=1), path="/LICENSE", times=1)
    start, began = time.monotonic(), []

    for event in steps(server, out):
        if isinstance(event, Retrying):
            assert event.seconds >= 1
            began.append(time.monotonic())
        if isinstance(event, Arrived) and event.path == "LICENSE":
            began.append(time.monotonic())

    assert began[1] - began[0] >= 1
    assert 1 <= event.seconds <= time.monotonic() - start + 0.001  # rounded to a millisecond
    assert_whole(out, server.folder)


def test_a_moment_to_come_again_is_waited_for(server, out):
    moment = datetime.now(timezone.utc) + timedelta(seconds=2.5)
    server.fault(status(429, retry_after=moment), path=SHARDS, times=1, skip=1)

    fetch(server, out)

    assert datetime.now(timezone.utc) >= moment.replace(microsecond=0)
    assert_whole(out, server.folder)


def test_the_wait_is_doubled_and_is_not_the_same_for_all(server, out):
    server.fault(status(500), path="/LICENSE", times=4)

    waits = [event.seconds for event in steps(server, out) if isinstance(event, Retrying)]

    assert len(waits) == 4
    assert all(0.01 * 2**n <= wait <= 0.02 * 2**n for n, wait in enumerate(waits))


def test_a_rate_is_kept_to(server, out):
    started = time.monotonic()

    fetch(server, out, limit_rate=400_000, connections=3)

    assert time.monotonic() - started >= 0.5  # 300 kB, and what the last piece need not wait for
    assert_whole(out, server.folder)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("500k", 500e3), ("10M", 10e6), ("1.5MB", 1.5e6), ("2g", 2e9), ("7", 7), (" 1 mB/s ", 1e6)],
)
def test_a_rate_is_read_as_people_write_it(text, nbytes):
    assert read_rate(text) == nbytes


@pytest.mark.parametrize("text", ["", "fast", "-1", "0", "nan", "inf", "1e400", "k", "10 M B"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(OptionError, match="limit_rate"):
        read_rate(text)


def test_a_plan_writes_nothing_and_asks_for_lists_and_sizes_only(large, out):
    events = list(Download([MODEL], out, DownloadSettings()).plan(read_link(large.link)))

    assert isinstance(events[-1], Planned)
    assert events[-1].nbytes_missing >= 20 * MB
    assert [one.path for one in large.requests] == [
        "/tokenizer_checklist.chk",
        "/llama-2-7b/checklist.chk",
        f"/{SHARD}",
    ]
    assert not out.exists()
    assert files_in(out.parent) == []
