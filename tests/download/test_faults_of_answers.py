"""Whatever a server sends instead of the bytes, what is kept at the end is the file."""

from __future__ import annotations

import pytest
from asking import NBYTES
from faults import (
    close,
    corrupt,
    cut_range,
    drop_connect,
    gzip,
    hang,
    html,
    ignore_range,
    longer,
    no_ranges,
    no_total,
    other_etag,
    overrun,
    redirect,
    reset,
    shorter_total,
    slow,
    status,
    surplus,
    wrong_range,
)
from fetching import MB, SHARDED, SHARDS, asked, assert_whole, fetch, files_in, kinds
from server import Server

from llamakit.download import segments
from llamakit.download.events import Restarted, Retrying
from llamakit.errors import DamagedFileError, DownloadError

SHARD = "llama-2-7b/consolidated.00.pth"

PASSING = {
    "reset at once": (reset(), 3),
    "reset in the body": (reset(after=100_000), 3),
    "closed at once": (close(), 3),
    "closed in the body": (close(after=100_000), 3),
    "429": (status(429), 3),
    "500": (status(500), 3),
    "502 with a page": (status(502, body=b"<html>", kind="text/html"), 2),
    "503": (status(503, retry_after=0), 3),
    "408": (status(408), 1),
    "a page": (html(), 2),
    "a page with 503": (html(status=503), 2),
    "a redirect to a page": (redirect("/login"), 2),
    "a redirect in a circle": (redirect(), 12),
    "gzip": (gzip(), 2),
    "other bytes of the file": (wrong_range(), 2),
    "another file": (other_etag(), 2),
    "more than was asked for": (overrun(50_000), 2),
    "bytes behind the body": (surplus(1000), 2),
    "a larger file": (longer(1000), 1),
    "a smaller file": (shorter_total(1000), 1),
    "whole for a range": (ignore_range(), 1),
    "slow": (slow(3_000_000), 1),
}


@pytest.mark.parametrize(("fault", "times"), PASSING.values(), ids=PASSING)
def test_a_fault_that_passes_leaves_no_trace(server, out, fault, times):
    server.fault(fault, path=SHARDS, times=1)  # the probe
    server.fault(fault, path=SHARDS, times=times, skip=1)  # the bytes
    for path in (
        "/tokenizer_checklist.chk",
        "*/checklist.chk",
        "/tokenizer.model",
        "*/params.json",
    ):
        server.fault(fault, path=path, times=1)

    events = fetch(server, out)

    assert_whole(out, server.folder)
    assert kinds(events)[-1] == "Finished"


@pytest.mark.parametrize(
    "fault",
    [
        reset(after=1 * MB),
        close(after=3 * MB),
        status(503),
        other_etag(),
        wrong_range(),
        overrun(1000),
        longer(5),
        shorter_total(5),
        gzip(),
        html(),
        corrupt(9 * MB),
    ],
    ids=lambda fault: fault.name,
)
def test_segments_of_one_file_do_not_harm_one_another(large, out, fault):
    large.fault(fault, path=SHARDS, times=3 if fault.name != "corrupt" else 1, skip=1)

    fetch(large, out)

    assert_whole(out, large.folder)


def test_connections_that_are_refused_are_made_again(server, out):
    server.fault(drop_connect(), times=3)

    fetch(server, out)

    assert_whole(out, server.folder)


def test_a_silent_server_is_left_and_asked_again(server, out):
    server.fault(hang(after=100_000), path=SHARDS, times=2)

    events = fetch(server, out, timeout=1.0)

    assert_whole(out, server.folder)
    assert "no byte from 127.0.0.1" in next(e for e in events if isinstance(e, Retrying)).reason
    shards_asked = [one for one in server.requests if one.path.endswith(".pth")]
    silent = next(at for at, one in enumerate(shards_asked) if one.fault)
    after = shards_asked[silent + 1].range[0]
    assert after >= 100_000 - 65_536  # what had arrived is not asked for again


def test_ranges_are_given_up_only_after_three_refusals(large, out):
    large.fault(ignore_range(), path=SHARDS, times=2, skip=1)

    fetch(large, out)

    assert_whole(out, large.folder)
    assert None not in asked(large)


def test_one_answer_without_a_range_to_the_probe_does_not_count(large, out):
    large.fault(ignore_range(), path=SHARDS, times=1)

    fetch(large, out)

    assert_whole(out, large.folder)
    assert len(asked(large)) == 3


@pytest.mark.parametrize(
    ("fault", "skip", "restarts"),
    [(no_ranges(length=True), 0, 0), (ignore_range(), 0, 1), (ignore_range(), 1, 1)],
    ids=["it says so", "from the start", "behind the probe"],
)
def test_a_server_without_ranges_gets_one_connection_for_a_file(large, out, fault, skip, restarts):
    large.fault(fault, path=SHARDS, times=99, skip=skip)

    events = fetch(large, out)

    assert_whole(out, large.folder)
    assert asked(large).count(None) == 1
    assert sum(isinstance(event, Restarted) for event in events) == restarts


def test_a_server_without_ranges_is_asked_from_the_beginning_after_a_reset(server, out):
    server.fault(no_ranges(length=True), path=SHARDS, times=1)
    server.fault(reset(after=150_000), path=SHARDS, times=1)
    server.fault(no_ranges(length=True), path=SHARDS, times=99)

    fetch(server, out)

    assert_whole(out, server.folder)


def test_a_server_that_does_not_say_a_size_is_refused(server, out):
    server.fault(no_ranges(), path=SHARDS, times=99)

    with pytest.raises(DownloadError, match="does not report the size"):
        fetch(server, out)


def test_a_size_that_is_not_said_is_where_the_last_byte_is(server, out):
    server.fault(no_total(), path=SHARDS, times=99)

    fetch(server, out)

    assert_whole(out, server.folder)


def test_ranges_that_a_server_shortens_are_asked_for_piece_by_piece(server, out):
    server.fault(cut_range(100_000), path=SHARDS, times=99)

    events = fetch(server, out, connections=1)

    assert_whole(out, server.folder)
    starts = [start for start, _ in asked(server)]
    assert starts == list(range(0, NBYTES, 100_000))
    assert not {"Retrying", "Restarted"} & set(kinds(events))


def test_no_request_is_for_more_than_a_cdn_sends(large, out, monkeypatch):
    monkeypatch.setattr(segments, "MAX_REQUEST_NBYTES", 4 * MB)

    fetch(large, out, connections=1)

    assert_whole(out, large.folder)
    spans = asked(large)
    assert [start for start, _ in spans] == list(range(0, 20 * MB + 1, 4 * MB))
    assert max(stop - start for start, stop in spans) == 4 * MB


def test_a_redirect_to_another_server_is_followed(server, large_folder, out, tmp_path):
    with Server(server.folder, query="") as mirror:
        server.fault(redirect(f"{mirror.base}/*"), times=99)

        fetch(server, out)

        assert_whole(out, server.folder)
        assert not any("Signature" in one.path for one in mirror.requests)


def test_a_file_that_arrives_damaged_is_fetched_once_more(server, out):
    server.fault(corrupt(200_000), path=SHARDS, times=1, skip=0)

    events = fetch(server, out)

    assert_whole(out, server.folder)
    assert len(asked(server)) == 2
    assert [event.path for event in events if isinstance(event, Restarted)] == [SHARD]


@pytest.mark.parametrize("path", [SHARDS, "/tokenizer.model"])
def test_a_file_that_is_always_damaged_is_an_error_and_not_kept(server, out, path):
    server.fault(corrupt(2000), path=path, times=99)

    with pytest.raises(DamagedFileError, match="twice"):
        fetch(server, out)

    name = SHARD if path == SHARDS else path.lstrip("/")
    assert not [found for found in files_in(out) if found.startswith(name)]


def test_one_damaged_shard_does_not_keep_the_others_from_arriving(sharded, out):
    sharded.fault(corrupt(2000), path="*/consolidated.03.pth", times=99)

    with pytest.raises(DamagedFileError, match=r"consolidated\.03\.pth"):
        fetch(sharded, out, model=SHARDED)

    arrived = [name for name in files_in(out) if name.endswith(".pth")]
    assert arrived == [f"llama-2-70b/consolidated.{n:02d}.pth" for n in range(8) if n != 3]
