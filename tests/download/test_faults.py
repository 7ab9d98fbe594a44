"""The test server misbehaves as it is told."""

from __future__ import annotations

import gzip as packing
import http.client
import time
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

import pytest
from asking import NBYTES, SHARD, body_of, get, raw
from faults import (
    close,
    corrupt,
    drop_connect,
    gzip,
    hang,
    html,
    ignore_range,
    longer,
    no_ranges,
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
from server import DEFAULT_QUERY


def test_reset_after_some_bytes(server, shard):
    server.fault(reset(after=100_000))

    data, end = raw(server, (0, 200_000), 300_000)

    assert (body_of(data), end) == (shard[:100_000], "reset")
    assert server.requests[0].nbytes == 100_000


def test_close_before_the_end(server, shard):
    server.fault(close(after=100_000))

    data, end = raw(server, (0, 200_000), 300_000)

    assert (body_of(data), end) == (shard[:100_000], "end")
    assert b"Content-Length: 200000\r\n" in data


def test_hang_and_continue(server, shard):
    server.fault(hang(after=100_000, seconds=0.3))

    begun = time.monotonic()
    _, body = get(server)

    assert body == shard
    assert time.monotonic() - begun >= 0.3


def test_waits_for_a_body_that_is_long_enough(server, shard):
    server.fault(reset(after=10))

    _, probe = get(server, span=(0, 1))
    _, end = raw(server, (0, 100), 1000)

    assert (probe, end) == (shard[:1], "reset")


@pytest.mark.parametrize("code", [401, 403, 404, 429, 500, 503])
def test_status(server, code):
    server.fault(status(code, retry_after=3, body=b"no"))

    response, body = get(server)

    assert (response.status, body, server.nbytes) == (code, b"no", 0)
    assert response.headers["Retry-After"] == "3"


def test_status_with_a_date(server):
    moment = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=9)
    server.fault(status(503, retry_after=moment))

    response, _ = get(server)

    assert response.headers["Retry-After"].endswith(" GMT")
    assert parsedate_to_datetime(response.headers["Retry-After"]) == moment


def test_status_once_so_much_was_sent(server):
    server.fault(status(429, after=1000), times=2)

    codes = [get(server, span=(0, 600))[0].status for _ in range(5)]

    assert codes == [206, 206, 429, 429, 206]


def test_ignore_range(server, shard):
    server.fault(ignore_range())

    _, whole = get(server)
    response, body = get(server, span=(10, 20))

    assert (whole, response.status, body) == (shard, 200, shard)
    assert [served.fault for served in server.requests] == [None, "ignore_range"]


def test_html(server):
    server.fault(html())

    response, body = get(server, span=(0, 1))

    assert (response.status, response.headers["Content-Type"][:9]) == (200, "text/html")
    assert b"expired" in body


@pytest.mark.parametrize(
    ("to", "location"),
    [
        ("/login", "/login"),
        ("http://127.0.0.1:1/*?new", f"http://127.0.0.1:1/{SHARD}?new"),
        (None, f"/{SHARD}?{DEFAULT_QUERY}"),
    ],
)
def test_redirect(server, to, location):
    server.fault(redirect(to, status=307), times=2)

    found = [get(server)[0] for _ in range(3)]
    _, page = get(server, "login", query="")

    assert [response.status for response in found] == [307, 307, 200]
    assert found[0].headers["Location"] == location
    assert page.startswith(b"<!DOCTYPE html>")


def test_other_etag(server, shard):
    server.fault(other_etag())

    response, body = get(server, span=(0, 100))
    _, again = get(server, span=(0, 100))

    assert (response.status, len(body), again) == (206, 100, shard[:100])
    assert response.headers["ETag"] != server.etag_of(SHARD)
    assert not any(a == b for a, b in zip(body, shard[:100], strict=True))


@pytest.mark.parametrize(
    ("span", "sent"),
    [((0, 1), (1, 2)), ((5, NBYTES), (4, NBYTES - 1)), ((0, NBYTES), (1, NBYTES))],
)
def test_wrong_range(server, shard, span, sent):
    server.fault(wrong_range())

    response, body = get(server, span=span)

    assert (response.status, body) == (206, shard[slice(*sent)])
    assert response.headers["Content-Range"] == f"bytes {sent[0]}-{sent[1] - 1}/{NBYTES}"


@pytest.mark.parametrize(("fault", "by"), [(longer(7), 7), (shorter_total(7), -7)])
def test_another_size(server, shard, fault, by):
    server.fault(fault, times=2)

    ranged, some = get(server, span=(0, 100))
    whole, body = get(server)

    assert ranged.headers["Content-Range"] == f"bytes 0-99/{NBYTES + by}"
    assert whole.headers["Content-Length"] == str(NBYTES + by)
    assert (some, body) == (shard[:100], (shard + bytes(7))[: NBYTES + by])


def test_overrun(server, shard):
    server.fault(overrun(5))

    response, body = get(server, span=(10, 20))

    assert response.headers["Content-Range"] == f"bytes 10-19/{NBYTES}"
    assert (response.headers["Content-Length"], body) == ("15", shard[10:20] + b"+++++")


def test_surplus(server, shard):
    server.fault(surplus(5))

    data, _ = raw(server, (10, 20), 15)

    assert b"Content-Length: 10\r\n" in data
    assert body_of(data) == shard[10:20] + b"+++++"


def test_corrupt_where_the_request_covers_it(server, shard):
    server.fault(corrupt(150_000))

    _, before = get(server, span=(0, 150_000))
    _, bad = get(server, span=(100_000, 200_000))
    _, good = get(server, span=(100_000, 200_000))

    assert (before, good) == (shard[:150_000], shard[100_000:200_000])
    wrong = [at for at, (a, b) in enumerate(zip(bad, good, strict=True)) if a != b]
    assert wrong == [50_000]


def test_slow(server, shard):
    server.fault(slow(1000))

    begun = time.monotonic()
    _, body = get(server, span=(0, 300))

    assert body == shard[:300]
    assert time.monotonic() - begun >= 0.29


def test_gzip(server, shard):
    server.fault(gzip())

    response, body = get(server, span=(0, 1000))

    assert (response.status, response.headers["Content-Encoding"]) == (206, "gzip")
    assert packing.decompress(body) == shard[:1000]


@pytest.mark.parametrize("length", [False, True])
def test_no_ranges(server, shard, length):
    server.fault(no_ranges(length=length))

    response, body = get(server, span=(5, 10))

    assert (response.status, body) == (200, shard)
    assert response.headers["Accept-Ranges"] == "none"
    assert ("Content-Length" in response.headers) is length
    assert not {"ETag", "Last-Modified"} & set(response.headers)


def test_drop_connect(server, shard):
    server.fault(drop_connect(), times=2, skip=1)

    results = []
    for _ in range(4):
        try:
            results.append(get(server)[1] == shard)
        except (http.client.RemoteDisconnected, ConnectionError):
            results.append("dropped")

    assert results == [True, "dropped", "dropped", True]


def test_hits_what_its_schedule_names(server):
    server.fault(status(500), path="*.json", times=2, skip=1)

    paths = ["LICENSE", *["llama-2-7b/params.json"] * 4]
    codes = [get(server, path)[0].status for path in paths]

    assert codes == [200, 200, 500, 500, 200]
