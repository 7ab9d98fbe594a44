"""The test server behaves as Meta's does while it is told nothing else."""

from __future__ import annotations

import threading
import time

import pytest
from asking import NBYTES, SHARD, ask, connect, get
from download_kit import signed_query
from faults import hang
from sending import UNREAD_NBYTES
from server import DEFAULT_QUERY, Server


def test_sends_a_whole_file(server, shard):
    response, body = get(server)

    assert (response.status, body) == (200, shard)
    assert response.headers["ETag"] == server.etag_of(SHARD)
    assert (server.nbytes, server.requests[0].nbytes) == (NBYTES, NBYTES)


@pytest.mark.parametrize("span", [(0, 1), (0, NBYTES), (1000, 200_000), (NBYTES - 1, NBYTES)])
def test_sends_a_range(server, shard, span):
    response, body = get(server, span=span)

    assert (response.status, body) == (206, shard[slice(*span)])
    assert response.headers["Content-Range"] == f"bytes {span[0]}-{span[1] - 1}/{NBYTES}"
    assert server.requests[0].range == span


def test_cuts_a_range_at_the_end_and_reads_open_ones(server, shard):
    beyond, tail = get(server, Range=f"bytes=299000-{NBYTES + 5}")
    _, rest = get(server, Range="bytes=299000-")
    _, last = get(server, Range="bytes=-7")

    assert beyond.headers["Content-Range"] == f"bytes 299000-299999/{NBYTES}"
    assert (tail, rest, last) == (shard[299_000:], shard[299_000:], shard[-7:])


def test_refuses_a_range_beyond_the_end(server):
    response, _ = get(server, Range=f"bytes={NBYTES}-")

    assert response.status == 416
    assert response.headers["Content-Range"] == f"bytes */{NBYTES}"


def test_refuses_head_but_answers_it_where_asked(folder):
    with Server(folder) as refusing, Server(folder, head=200) as willing:
        refused, _ = get(refusing, method="HEAD")
        answered, body = get(willing, method="HEAD")

    assert (refused.status, answered.status, body) == (403, 200, b"")
    assert answered.headers["Content-Length"] == str(NBYTES)


@pytest.mark.parametrize("query", ["", DEFAULT_QUERY + "&", DEFAULT_QUERY.replace("~", "%7E")])
def test_takes_the_signature_byte_for_byte_only(server, query):
    response, body = get(server, query=query)

    assert (response.status, server.requests[0].query_ok) == (403, False)
    assert b"<Code>AccessDenied</Code>" in body


def test_finds_no_file_outside_its_folder(server, tmp_path):
    (tmp_path / "outside").write_text("secret")

    statuses = [get(server, path)[0].status for path in ("../outside", "%2e%2e/outside", "x")]

    assert statuses == [404, 404, 404]


def test_keeps_a_connection_and_numbers_it(server):
    connection = connect(server)
    for _ in range(2):
        ask(connection, span=(0, 10)).read()
    connection.close()
    get(server, span=(0, 10))

    assert [served.connection for served in server.requests] == [0, 0, 1]


def test_sends_ranges_only_of_the_file_that_was_meant(server):
    etag = server.etag_of(SHARD)
    same, _ = get(server, span=(5, 10), If_Range=etag, If_Match=etag)
    server.touch(SHARD)
    whole, _ = get(server, span=(5, 10), If_Range=etag)
    refused, _ = get(server, span=(5, 10), If_Match=etag)

    assert (same.status, whole.status, refused.status) == (206, 200, 412)


def test_touches_the_validator_alone_or_the_bytes_too(server, shard):
    etags = [server.etag_of(SHARD)]
    server.touch(SHARD, other_bytes=False)
    _, kept = get(server)
    etags.append(server.etag_of(SHARD))
    server.touch(SHARD)
    _, changed = get(server)
    etags.append(server.etag_of(SHARD))

    assert kept == shard
    assert len(changed) == NBYTES
    assert not any(a == b for a, b in zip(changed, shard, strict=True))
    assert len(set(etags)) == 3


def test_revokes_a_signature_and_takes_a_new_one(server):
    server.revoke()
    after_end, _ = get(server)
    fresh = signed_query(signature="SECRET-second")
    server.revoke(fresh)
    old, _ = get(server)
    new, _ = get(server, query=fresh)

    assert (after_end.status, old.status, new.status) == (403, 403, 200)
    assert server.link == f"{server.base}/*?{fresh}"


def test_lets_a_body_end_whose_signature_ended(folder, shard):
    with Server(folder, rate=2_000_000) as server:
        connection = connect(server)
        response = ask(connection)
        server.revoke()
        body = response.read()
        connection.close()

    assert body == shard


def test_keeps_to_its_rate(folder):
    with Server(folder, rate=1_000_000) as server:
        begun = time.monotonic()
        get(server)

    assert time.monotonic() - begun >= 0.29


def test_keeps_to_its_rate_over_the_requests_of_a_connection(folder):
    with Server(folder, rate=1_000_000) as server:
        connection = connect(server)
        begun = time.monotonic()
        for _ in range(3):
            ask(connection, span=(0, 100_000)).read()
        took = time.monotonic() - begun
        connection.close()

    assert took >= 0.29


def test_says_when_bytes_were_sent(server):
    server.fault(hang(after=200_000))
    connection = connect(server)
    response = ask(connection)

    server.wait_for(200_000, timeout=180)

    assert server.nbytes == server.requests[0].nbytes == 200_000
    with pytest.raises(TimeoutError, match="200000 of 200001"):
        server.wait_for(200_001, timeout=0)
    response.close()
    connection.close()


def test_sends_no_more_than_it_may_until_it_is_released(server, shard):
    server.hold(100_000)
    connection = connect(server)
    response = ask(connection)
    begun = response.read(100_000)
    refused, page = get(server, query="another")

    assert (server.nbytes, refused.status, len(page) > 0) == (100_000, 403, True)
    server.release()
    assert begun + response.read() == shard
    connection.close()


def test_at_a_rate_waits_for_a_client_that_does_not_read(folder, shard):
    with Server(folder, rate=1_000_000) as server:
        connection = connect(server)
        response = ask(connection)
        server.wait_for(UNREAD_NBYTES, timeout=180)
        time.sleep(0.3)

        assert server.nbytes <= UNREAD_NBYTES + 20_000 + 20_000  # pieces of a fiftieth of a second
        assert response.read() == shard
        connection.close()


def test_sends_a_file_with_holes_from_far_in(server, folder):
    with (folder / "big").open("wb") as file:
        file.truncate(5 << 30)
        file.seek(4 << 30)
        file.write(b"here")

    response, body = get(server, "big", span=(4 << 30, (4 << 30) + 6))

    assert body == b"here\0\0"
    assert response.headers["Content-Range"].endswith(f"/{5 << 30}")


def test_leaves_no_thread_behind_that_clients_hold_up(folder):
    before = threading.active_count()
    with Server(folder) as server:
        server.fault(hang(10))
        idle, stuck = connect(server), connect(server)
        idle.connect()
        response = ask(stuck)
        response.read(10)

    assert threading.active_count() == before
    idle.close()
    response.close()
    stuck.close()


def test_serves_without_signatures_where_asked(folder, shard):
    with Server(folder, query="") as server:
        _, body = get(server, query="")

    assert (server.link, body) == (f"{server.base}/*", shard)
