"""The test server does what the download tests say that it does."""

from __future__ import annotations

import base64
import gzip as packing
import hashlib
import http.client
import json
import socket
import threading
import time
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

import pytest
from download_kit import SIGNATURE, make_model, signed_query
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
from server import DEFAULT_QUERY, Server

SHARD = "llama-2-7b/consolidated.00.pth"
NBYTES = 300_000


@pytest.fixture
def folder(tmp_path):
    make_model(tmp_path / "served", nbytes=NBYTES)
    return tmp_path / "served"


@pytest.fixture
def shard(folder):
    return (folder / SHARD).read_bytes()


@pytest.fixture
def server(folder):
    with Server(folder) as server:
        yield server


def connect(server):
    return http.client.HTTPConnection(server.base.removeprefix("http://"), timeout=10)


def ask(connection, path=SHARD, span=None, query=DEFAULT_QUERY, method="GET", **headers):
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if span:
        fields["Range"] = f"bytes={span[0]}-{span[1] - 1}"
    connection.request(method, f"/{path}?{query}", headers=fields)
    return connection.getresponse()


def get(server, path=SHARD, span=None, query=DEFAULT_QUERY, method="GET", **headers):
    """One request on a connection of its own; return the response and its body."""
    connection = connect(server)
    try:
        response = ask(connection, path, span, query, method, **headers)
        return response, response.read()
    finally:
        connection.close()


def raw(server, span, nbytes):
    """Read so many bytes of a body from the socket; return them with the head, and the end."""
    got = b""
    host, _, port = server.base.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        lines = f"Host: x\r\nRange: bytes={span[0]}-{span[1] - 1}"
        connection.sendall(f"GET /{SHARD}?{DEFAULT_QUERY} HTTP/1.1\r\n{lines}\r\n\r\n".encode())
        try:
            while len(body_of(got)) < nbytes and (more := connection.recv(1 << 16)):
                got += more
        except ConnectionResetError:
            return got, "reset"
    return got, "end"


def body_of(data):
    return data.partition(b"\r\n\r\n")[2]


class TestGoodServer:
    def test_sends_a_whole_file(self, server, shard):
        response, body = get(server)

        assert (response.status, body) == (200, shard)
        assert response.headers["ETag"] == server.etag_of(SHARD)
        assert (server.nbytes, server.requests[0].nbytes) == (NBYTES, NBYTES)

    @pytest.mark.parametrize("span", [(0, 1), (0, NBYTES), (1000, 200_000), (NBYTES - 1, NBYTES)])
    def test_sends_a_range(self, server, shard, span):
        response, body = get(server, span=span)

        assert (response.status, body) == (206, shard[slice(*span)])
        assert response.headers["Content-Range"] == f"bytes {span[0]}-{span[1] - 1}/{NBYTES}"
        assert server.requests[0].range == span

    def test_cuts_a_range_at_the_end_and_reads_open_ones(self, server, shard):
        beyond, tail = get(server, Range=f"bytes=299000-{NBYTES + 5}")
        _, rest = get(server, Range="bytes=299000-")
        _, last = get(server, Range="bytes=-7")

        assert beyond.headers["Content-Range"] == f"bytes 299000-299999/{NBYTES}"
        assert (tail, rest, last) == (shard[299_000:], shard[299_000:], shard[-7:])

    def test_refuses_a_range_beyond_the_end(self, server):
        response, _ = get(server, Range=f"bytes={NBYTES}-")

        assert response.status == 416
        assert response.headers["Content-Range"] == f"bytes */{NBYTES}"

    def test_refuses_head_but_answers_it_where_told(self, folder):
        with Server(folder) as refusing, Server(folder, head=200) as willing:
            refused, _ = get(refusing, method="HEAD")
            answered, body = get(willing, method="HEAD")

        assert (refused.status, answered.status, body) == (403, 200, b"")
        assert answered.headers["Content-Length"] == str(NBYTES)

    @pytest.mark.parametrize("query", ["", DEFAULT_QUERY + "&", DEFAULT_QUERY.replace("~", "%7E")])
    def test_takes_the_signature_byte_for_byte_only(self, server, query):
        response, body = get(server, query=query)

        assert (response.status, server.requests[0].query_ok) == (403, False)
        assert b"<Code>AccessDenied</Code>" in body

    def test_finds_no_file_outside_its_folder(self, server, tmp_path):
        (tmp_path / "outside").write_text("secret")

        statuses = [get(server, path)[0].status for path in ("../outside", "%2e%2e/outside", "x")]

        assert statuses == [404, 404, 404]

    def test_keeps_a_connection_and_numbers_it(self, server):
        connection = connect(server)
        for _ in range(2):
            ask(connection, span=(0, 10)).read()
        connection.close()
        get(server, span=(0, 10))

        assert [served.connection for served in server.requests] == [0, 0, 1]

    def test_sends_ranges_only_of_the_file_that_was_meant(self, server):
        etag = server.etag_of(SHARD)
        same, _ = get(server, span=(5, 10), If_Range=etag, If_Match=etag)
        server.touch(SHARD)
        whole, _ = get(server, span=(5, 10), If_Range=etag)
        refused, _ = get(server, span=(5, 10), If_Match=etag)

        assert (same.status, whole.status, refused.status) == (206, 200, 412)

    def test_touches_the_validator_alone_or_the_bytes_too(self, server, shard):
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

    def test_revokes_a_signature_and_takes_a_new_one(self, server):
        server.revoke()
        after_end, _ = get(server)
        fresh = signed_query(signature="SECRET-second")
        server.revoke(fresh)
        old, _ = get(server)
        new, _ = get(server, query=fresh)

        assert (after_end.status, old.status, new.status) == (403, 403, 200)
        assert server.link == f"{server.base}/*?{fresh}"

    def test_lets_a_body_end_whose_signature_ended(self, folder, shard):
        with Server(folder, rate=2_000_000) as server:
            connection = connect(server)
            response = ask(connection)
            server.revoke()
            body = response.read()
            connection.close()

        assert body == shard

    def test_keeps_to_its_rate(self, folder):
        with Server(folder, rate=1_000_000) as server:
            begun = time.monotonic()
            get(server)

        assert time.monotonic() - begun >= 0.29

    def test_says_when_bytes_were_sent(self, server):
        server.fault(hang(after=200_000))
        connection = connect(server)
        response = ask(connection)

        server.wait_for(200_000, timeout=10)

        assert server.nbytes == server.requests[0].nbytes == 200_000
        with pytest.raises(TimeoutError, match="200000 of 200001"):
            server.wait_for(200_001, timeout=0)
        response.close()
        connection.close()

    def test_sends_a_file_with_holes_from_far_in(self, server, folder):
        with (folder / "big").open("wb") as file:
            file.truncate(5 << 30)
            file.seek(4 << 30)
            file.write(b"here")

        response, body = get(server, "big", span=(4 << 30, (4 << 30) + 6))

        assert body == b"here\0\0"
        assert response.headers["Content-Range"].endswith(f"/{5 << 30}")

    def test_leaves_no_thread_behind_that_clients_hold_up(self, folder):
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

    def test_serves_without_signatures_where_told(self, folder, shard):
        with Server(folder, query="") as server:
            _, body = get(server, query="")

        assert (server.link, body) == (f"{server.base}/*", shard)


class TestFaults:
    def test_reset_after_some_bytes(self, server, shard):
        server.fault(reset(after=100_000))

        data, end = raw(server, (0, 200_000), 300_000)

        assert (body_of(data), end) == (shard[:100_000], "reset")
        assert server.requests[0].nbytes == 100_000

    def test_close_before_the_end(self, server, shard):
        server.fault(close(after=100_000))

        data, end = raw(server, (0, 200_000), 300_000)

        assert (body_of(data), end) == (shard[:100_000], "end")
        assert b"Content-Length: 200000\r\n" in data

    def test_hang_and_go_on(self, server, shard):
        server.fault(hang(after=100_000, seconds=0.3))

        begun = time.monotonic()
        _, body = get(server)

        assert body == shard
        assert time.monotonic() - begun >= 0.3

    def test_waits_for_a_body_that_is_long_enough(self, server, shard):
        server.fault(reset(after=10))

        _, probe = get(server, span=(0, 1))
        _, end = raw(server, (0, 100), 1000)

        assert (probe, end) == (shard[:1], "reset")

    @pytest.mark.parametrize("code", [401, 403, 404, 429, 500, 503])
    def test_status(self, server, code):
        server.fault(status(code, retry_after=3, body=b"no"))

        response, body = get(server)

        assert (response.status, body, server.nbytes) == (code, b"no", 0)
        assert response.headers["Retry-After"] == "3"

    def test_status_with_a_date(self, server):
        moment = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=9)
        server.fault(status(503, retry_after=moment))

        response, _ = get(server)

        assert response.headers["Retry-After"].endswith(" GMT")
        assert parsedate_to_datetime(response.headers["Retry-After"]) == moment

    def test_status_once_so_much_was_sent(self, server):
        server.fault(status(429, after=1000), times=2)

        codes = [get(server, span=(0, 600))[0].status for _ in range(5)]

        assert codes == [206, 206, 429, 429, 206]

    def test_ignore_range(self, server, shard):
        server.fault(ignore_range())

        _, whole = get(server)
        response, body = get(server, span=(10, 20))

        assert (whole, response.status, body) == (shard, 200, shard)
        assert [served.fault for served in server.requests] == [None, "ignore_range"]

    def test_html(self, server):
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
    def test_redirect(self, server, to, location):
        server.fault(redirect(to, status=307), times=2)

        found = [get(server)[0] for _ in range(3)]
        _, page = get(server, "login", query="")

        assert [response.status for response in found] == [307, 307, 200]
        assert found[0].headers["Location"] == location
        assert page.startswith(b"<!DOCTYPE html>")

    def test_other_etag(self, server, shard):
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
    def test_wrong_range(self, server, shard, span, sent):
        server.fault(wrong_range())

        response, body = get(server, span=span)

        assert (response.status, body) == (206, shard[slice(*sent)])
        assert response.headers["Content-Range"] == f"bytes {sent[0]}-{sent[1] - 1}/{NBYTES}"

    @pytest.mark.parametrize(("fault", "by"), [(longer(7), 7), (shorter_total(7), -7)])
    def test_another_size(self, server, shard, fault, by):
        server.fault(fault, times=2)

        ranged, some = get(server, span=(0, 100))
        whole, body = get(server)

        assert ranged.headers["Content-Range"] == f"bytes 0-99/{NBYTES + by}"
        assert whole.headers["Content-Length"] == str(NBYTES + by)
        assert (some, body) == (shard[:100], (shard + bytes(7))[: NBYTES + by])

    def test_overrun(self, server, shard):
        server.fault(overrun(5))

        response, body = get(server, span=(10, 20))

        assert response.headers["Content-Range"] == f"bytes 10-19/{NBYTES}"
        assert (response.headers["Content-Length"], body) == ("15", shard[10:20] + b"+++++")

    def test_surplus(self, server, shard):
        server.fault(surplus(5))

        data, _ = raw(server, (10, 20), 15)

        assert b"Content-Length: 10\r\n" in data
        assert body_of(data) == shard[10:20] + b"+++++"

    def test_corrupt_where_the_request_covers_it(self, server, shard):
        server.fault(corrupt(150_000))

        _, before = get(server, span=(0, 150_000))
        _, bad = get(server, span=(100_000, 200_000))
        _, good = get(server, span=(100_000, 200_000))

        assert (before, good) == (shard[:150_000], shard[100_000:200_000])
        wrong = [at for at, (a, b) in enumerate(zip(bad, good, strict=True)) if a != b]
        assert wrong == [50_000]

    def test_slow(self, server, shard):
        server.fault(slow(1000))

        begun = time.monotonic()
        _, body = get(server, span=(0, 300))

        assert body == shard[:300]
        assert time.monotonic() - begun >= 0.29

    def test_gzip(self, server, shard):
        server.fault(gzip())

        response, body = get(server, span=(0, 1000))

        assert (response.status, response.headers["Content-Encoding"]) == (206, "gzip")
        assert packing.decompress(body) == shard[:1000]

    @pytest.mark.parametrize("length", [False, True])
    def test_no_ranges(self, server, shard, length):
        server.fault(no_ranges(length=length))

        response, body = get(server, span=(5, 10))

        assert (response.status, body) == (200, shard)
        assert response.headers["Accept-Ranges"] == "none"
        assert ("Content-Length" in response.headers) is length
        assert not {"ETag", "Last-Modified"} & set(response.headers)

    def test_drop_connect(self, server, shard):
        server.fault(drop_connect(), times=2, skip=1)

        results = []
        for _ in range(4):
            try:
                results.append(get(server)[1] == shard)
            except (http.client.RemoteDisconnected, ConnectionError):
                results.append("dropped")

        assert results == [True, "dropped", "dropped", True]

    def test_hits_what_its_schedule_names(self, server):
        server.fault(status(500), path="*.json", times=2, skip=1)

        paths = ["LICENSE", *["llama-2-7b/params.json"] * 4]
        codes = [get(server, path)[0].status for path in paths]

        assert codes == [200, 200, 500, 500, 200]


def test_a_query_says_what_it_covers_and_when_it_ends():
    ends = datetime(2030, 5, 6, tzinfo=timezone.utc)

    fields = dict(field.split("=", 1) for field in signed_query(ends=ends).split("&"))

    letters = fields["Policy"].translate(str.maketrans("-_~", "+=/"))
    statement = json.loads(base64.b64decode(letters))["Statement"][0]
    assert statement["Resource"] == "https://download.llamameta.net/*"
    assert statement["Condition"]["DateLessThan"]["AWS:EpochTime"] == int(ends.timestamp())
    assert (fields["Signature"], len(SIGNATURE)) == (SIGNATURE, 344)
    assert not set("+=/") & set(fields["Policy"])
    assert set("-_~") <= set(fields["Policy"])


def test_a_model_is_whole_and_the_same_each_time(tmp_path):
    first = make_model(tmp_path / "a", "llama-2-13b", shards=2, nbytes=1_500_000)
    second = make_model(tmp_path / "b", "llama-2-13b", shards=2, nbytes=1_500_000)

    for folder, list_name in [(first, "checklist.chk"), (first.parent, "tokenizer_checklist.chk")]:
        for line in (folder / list_name).read_text().splitlines():
            md5, name = line.split()
            assert hashlib.md5((folder / name).read_bytes()).hexdigest() == md5
    shards = [sorted(folder.glob("*.pth")) for folder in (first, second)]
    assert [it.read_bytes() for it in shards[0]] == [it.read_bytes() for it in shards[1]]
    assert shards[0][0].read_bytes()[:99] != shards[0][1].read_bytes()[:99]
