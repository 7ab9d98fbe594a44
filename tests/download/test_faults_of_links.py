"""A link that ends, at the start or midway, and what the server says of it."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from download_kit import SIGNATURE, signed_query
from faults import html, redirect, status
from fetching import MB, SHARDED, SHARDS, asked, assert_whole, fetch, kinds, steps
from server import Server

from llamakit.download.events import Arrived, LinkEnded
from llamakit.errors import DownloadError, LinkExpiredError

ELSEWHERE = "http://127.0.0.1:*"
NEW = signed_query(ELSEWHERE, signature="NEW" + SIGNATURE[3:])


@pytest.mark.parametrize("code", [401, 403, 410])
def test_a_link_that_the_server_takes_no_more_ends_the_run_at_once(server, out, code):
    server.fault(status(code), times=99)

    with pytest.raises(LinkExpiredError, match=f"HTTP {code}.*new link"):
        fetch(server, out)

    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [403, 404])
def test_a_server_without_signatures_has_no_link_that_ends(folder, out, code):
    with Server(folder, query="") as mirror:
        mirror.fault(status(code), times=99)

        with pytest.raises(DownloadError, match=f"HTTP {code}") as caught:
            fetch(mirror, out)

    assert not isinstance(caught.value, LinkExpiredError)


def test_a_file_that_is_missing_is_named_and_the_others_arrive(sharded, out):
    sharded.fault(status(404), path="*/consolidated.02.pth", times=9, skip=1)

    with pytest.raises(DownloadError, match=r"has no llama-2-70b/consolidated\.02\.pth"):
        fetch(sharded, out, model=SHARDED)

    assert len(list(out.glob("*/*.pth"))) == 7


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (html(), r'sent an HTML page \("Llama"\) instead of'),
        (redirect("/login"), r'sent an HTML page \("Llama"\) instead of'),
        (redirect(), "redirects .* in a circle"),
        (redirect("ftp://example.org/*"), "redirects .* to ftp"),
        (status(503, retry_after=7200), "retry after 7200 s"),
        (status(500), "HTTP 500"),
    ],
    ids=["page", "login", "circle", "ftp", "come again tomorrow", "500"],
)
def test_what_does_not_pass_is_said_in_a_sentence(server, out, fault, said):
    server.fault(fault, path=SHARDS, times=999)

    with pytest.raises(DownloadError, match=said) as caught:
        fetch(server, out)

    assert SIGNATURE[:30] not in str(caught.value)
    assert not list(out.glob("*/*.pth"))


def test_a_link_that_ends_midway_keeps_what_is_there(large, out):
    with pytest.raises(LinkExpiredError):
        revoke_midway(large, 2, lambda: fetch(large, out, connections=2))
    before = large.nbytes
    large.revoke(NEW)
    fetch(large, out)

    assert_whole(out, large.folder)
    # the segments that were under way arrived; the third one was all that was missing
    assert large.nbytes - before == 4 * MB + 12_345 + 1


def test_what_is_under_way_when_the_link_ends_is_still_taken(sharded, out):
    with pytest.raises(LinkExpiredError):
        revoke_midway(sharded, 3, lambda: fetch(sharded, out, model=SHARDED, connections=3))

    assert len(list(out.glob("*/*.pth"))) == 3


def test_a_new_signature_for_the_same_files_resumes_where_the_old_one_ended(sharded, out):
    sharded.fault(status(403), path=SHARDS, skip=8 + 3)  # eight remote_files, three shards
    with pytest.raises(LinkExpiredError):
        fetch(sharded, out, model=SHARDED, connections=1)
    here = {path.name for path in out.glob("*/*.pth")}
    sharded.revoke(NEW)

    events = fetch(sharded, out, model=SHARDED)

    assert_whole(out, sharded.folder)
    arrived = [event.path for event in events if isinstance(event, Arrived)]
    assert len(here) == 3
    assert not [path for path in arrived if path.rpartition("/")[2] in here]


def test_the_end_of_a_link_is_an_event(sharded, out):
    sharded.fault(status(403), path=SHARDS, times=99, skip=8)
    events = []

    with pytest.raises(LinkExpiredError):
        events.extend(steps(sharded, out, model=SHARDED))

    assert kinds(events).count("LinkEnded") == 1
    assert SIGNATURE not in str([event for event in events if isinstance(event, LinkEnded)])


def test_a_link_whose_time_is_over_costs_no_request(server, out):
    ended = datetime.now(timezone.utc) - timedelta(days=2, hours=1)

    with pytest.raises(LinkExpiredError, match=r"expired 2 days ago, at .* UTC. Request a new one"):
        fetch(server, out, link=f"{server.base}/*?{signed_query(ELSEWHERE, ends=ended)}")

    assert server.requests == []
    assert not out.exists()


def revoke_midway(server, nbodies, run):
    """Run while the link ends when so many bodies of shards are under way, none of them whole."""

    def revoke():
        server.wait_for(400_000, 180)
        while len(asked(server)) < nbodies:
            time.sleep(0.01)
        server.revoke()
        server.release()

    server.hold(400_000)
    thread = threading.Thread(target=revoke, daemon=True)
    thread.start()
    try:
        run()
    finally:
        thread.join(60)
