"""The real command, in a process of its own, against a server that misbehaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from download_kit import SIGNATURE, signed_query
from faults import (
    Fault,
    close,
    corrupt,
    gzip,
    hang,
    html,
    ignore_range,
    other_etag,
    overrun,
    redirect,
    reset,
    status,
    surplus,
    wrong_range,
)
from fetching import MB, SHARDS, assert_whole, fetch, files_in
from replies import good_reply

from llamakit.download.part_file import resumable_nbytes

ELSEWHERE = "http://127.0.0.1:*"
SHARD = "llama-2-7b/consolidated.00.pth"


def silent(until):
    """Take a request and say nothing at all, not even a status."""
    return Fault("silent", lambda ask: until.wait(180) and good_reply(ask), lambda a: a.nbytes > MB)


def test_all_faults_in_one_run_and_the_bytes_are_right(large, download, out):
    large.fault(corrupt(17 * MB), path=SHARDS)  # whatever else is wrong with that request
    for path in ("/tokenizer*", "*/params.json", "/LICENSE"):
        large.fault(status(503, retry_after=0), path=path)
        large.fault(html(), path=path)
    for fault in (status(429), gzip(), redirect("/login")):
        large.fault(fault, path=SHARDS)  # the probe
    for fault in (
        reset(after=1 * MB),
        close(after=2 * MB),
        hang(after=MB),
        wrong_range(),
        other_etag(),
        ignore_range(),
        status(500, retry_after=0),
        overrun(1000),
        surplus(100),
    ):
        large.fault(fault, path=SHARDS, skip=1)

    done = download("--timeout", "0.5", link=large.link)

    assert done.returncode == 0, done.stderr
    assert_whole(out, large.folder)
    assert "Everything is there and verified. Next: llamakit generate -m" in done.stdout
    for said in ("HTTP 429", "fetched again", "MD5 verified"):
        assert said in done.stderr
    assert all(line.startswith("llamakit: ") for line in done.stderr.splitlines())
    assert {one.fault.partition("(")[0] for one in large.requests if one.fault} == {
        *("reset", "close", "hang", "wrong_range", "other_etag", "overrun", "surplus"),
        *("ignore_range", "corrupt", "status", "gzip", "redirect", "html"),
    }


def test_what_does_not_pass_ends_with_status_1(server, download, out):
    server.fault(corrupt(1000), path=SHARDS, times=9)

    done = download(link=server.link)

    assert done.returncode == 1
    assert "llamakit: error: llama-2-7b/consolidated.00.pth: expected MD5" in done.stderr
    assert sorted(path.name for path in (out / "llama-2-7b").iterdir()) == [
        "checklist.chk",
        "params.json",
    ]


def test_a_link_that_has_ended_ends_with_status_3_and_no_request(server, download):
    ended = datetime.now(timezone.utc) - timedelta(hours=3)
    query = signed_query(ELSEWHERE, ends=ended)

    done = download(link=f"{server.base}/*?{query}")

    assert done.returncode == 3
    assert "error: the link expired 3 hours ago" in done.stderr
    assert server.requests == []


def test_a_link_that_ends_midway_ends_with_status_3_and_a_new_one_resumes(large, download, out):
    large.fault(status(403), path=SHARDS, skip=3)  # the probe and two segments are good

    done = download("--connections", "2", link=large.link)

    assert done.returncode == 3
    assert "the link has expired" in done.stderr
    assert "new link from Meta" in done.stderr
    before = large.nbytes
    query = signed_query(ELSEWHERE, signature="NEW" + SIGNATURE[3:])
    large.revoke(query)

    done = download("--url-file", "-", stdin=f"> {large.link[:90]}\r\n> {large.link[90:]}\r\n")

    assert done.returncode == 0, done.stderr
    assert_whole(out, large.folder)
    assert large.nbytes - before == 20 * MB + 12_345 - 16 * MB + 1


def test_where_everything_is_there_neither_a_link_nor_a_request_is_needed(server, download, out):
    assert download(link=server.link).returncode == 0
    before = len(server.requests)
    ended = datetime.now(timezone.utc) - timedelta(hours=3)

    without = download()
    with_an_old_one = download(link=f"{server.base}/*?{signed_query(ELSEWHERE, ends=ended)}")

    for done in (without, with_an_old_one):
        assert done.returncode == 0, done.stderr
        assert "Everything is there" in done.stdout
    assert len(server.requests) == before


def test_a_dry_run_shows_what_there_is_to_do_and_writes_nothing(large, download, out):
    with_link = download("--dry-run", link=large.link)
    without = download("--dry-run")

    assert with_link.returncode == without.returncode == 0
    for name in files_in(large.folder):
        assert name in with_link.stdout
        assert name in without.stdout
    assert "21 MB to fetch" in with_link.stdout
    assert "about 13.5 GB to fetch" in without.stdout
    assert "are free" in without.stdout
    assert not out.exists()
    assert max(one.nbytes for one in large.requests) < 1000


@pytest.mark.parametrize("answers", [True, False], ids=["a body that stalls", "no answer"])
def test_ctrl_c_ends_at_once_and_the_next_run_resumes(isolated, large, out, answers):
    over = threading.Event()
    large.fault(hang(after=3 * MB) if answers else silent(over), path=SHARDS, skip=2)
    child = subprocess.Popen(
        [sys.executable, "-m", "llamakit", "download", "7B", "--output-dir", out, "--json"],
        env={**isolated, "LLAMAKIT_URL": large.link},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while resumable_nbytes(out / SHARD) < 12 * MB:  # all that comes before the server says no more
        time.sleep(0.01)
        assert child.poll() is None

    child.send_signal(signal.SIGINT)
    stdout, stderr = child.communicate(timeout=180)
    over.set()

    assert child.returncode == 130
    assert '"exit_status": 130' in stdout.splitlines()[-1]
    assert "what is downloaded is kept: run the same command to resume" in stderr
    assert "Traceback" not in stderr
    assert (out / f"{SHARD}.part").exists()
    before = large.nbytes
    fetch(large, out)
    assert_whole(out, large.folder)
    assert large.nbytes - before < 9 * MB


def test_a_download_starts_without_numpy():
    code = "import sys, llamakit.download.session; print('numpy' in sys.modules)"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout

    assert printed.strip() == b"False"
