"""What an earlier run has left is used if it is of the same file, and only then."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import pytest
from download_kit import SIGNATURE, signed_query
from faults import no_ranges, other_etag, status
from fetching import MB, SHARDS, asked, assert_whole, fetch, files_in, steps
from server import Server

from llamakit.download.events import Restarted
from llamakit.download.part_file import BLOCK_NBYTES
from llamakit.errors import DamagedFileError, DownloadError, LinkExpiredError

SHARD = "llama-2-7b/consolidated.00.pth"


@pytest.fixture
def begun(large, out):
    """A download of which every second block is there."""
    large.fault(status(403), path=SHARDS, skip=1)
    with pytest.raises(LinkExpiredError):
        fetch(large, out)
    state, part = out / f"{SHARD}.part.state", out / f"{SHARD}.part"
    line, _, marks = state.read_bytes().partition(b"\n")
    content = (large.folder / SHARD).read_bytes()
    with part.open("r+b") as file:
        for block in range(0, len(marks), 2):
            file.seek(block * BLOCK_NBYTES)
            file.write(content[block * BLOCK_NBYTES :][:BLOCK_NBYTES])
    state.write_bytes(line + b"\n" + (b"\1\0" * len(marks))[: len(marks)])
    return state


def test_only_the_holes_are_fetched(large, out, begun):
    before = large.nbytes

    fetch(large, out)

    assert_whole(out, large.folder)
    assert large.nbytes - before == 40 * BLOCK_NBYTES + 1


def test_after_another_start_of_the_machine_what_was_not_synced_is_fetched_again(large, out, begun):
    line, _, marks = begun.read_bytes().partition(b"\n")
    header = json.dumps({**json.loads(line), "boot": "another"}).encode()
    begun.write_bytes(header + b"\n" + b"\2" + marks[1:])
    before = large.nbytes

    fetch(large, out)

    assert_whole(out, large.folder)
    assert large.nbytes - before == 20 * MB + 12_345 - BLOCK_NBYTES + 1


def test_another_server_with_the_same_files_resumes_only_by_the_validator(large, out, begun):
    with Server(large.folder, query="") as mirror:
        fetch(mirror, out)

        assert_whole(out, large.folder)
        assert mirror.nbytes == 40 * BLOCK_NBYTES + 1


def test_a_new_signature_changes_nothing_of_what_is_there(large, out, begun):
    state = begun.read_bytes()
    large.revoke(signed_query("http://127.0.0.1:*", signature="NEW" + SIGNATURE[3:]))
    before = large.nbytes

    fetch(large, out)

    assert_whole(out, large.folder)
    assert large.nbytes - before == 40 * BLOCK_NBYTES + 1
    assert b"Signature" not in state


def test_what_is_there_of_a_file_that_changed_meanwhile_is_dropped(large, out, begun):
    large.touch(SHARD, other_bytes=False)
    before = large.nbytes

    fetch(large, out)

    assert_whole(out, large.folder)
    assert large.nbytes - before == 20 * MB + 12_345 + 1


def test_what_is_there_and_damaged_is_found_and_fetched_again(large, out, begun):
    with begun.with_suffix("").open("r+b") as file:
        file.write(b"damaged")

    fetch(large, out)

    assert_whole(out, large.folder)


def test_a_server_that_has_forgotten_ranges_sends_all_again(large, out, begun):
    large.fault(no_ranges(length=True), path=SHARDS, times=9)

    fetch(large, out)

    assert_whole(out, large.folder)
    assert asked(large)[-1] is None


def fetch_while_it_changes(server, out, *, other_bytes):
    """Fetch a file that is another one from its fourth megabyte on."""
    server.hold(3 * MB)
    for _ in steps(server, out, connections=2):
        if server.nbytes == 3 * MB:
            server.touch(SHARD, other_bytes=other_bytes)
            server.release()


def test_an_etag_that_changes_midway_costs_the_file_and_not_its_bytes(large, out):
    fetch_while_it_changes(large, out, other_bytes=False)

    assert_whole(out, large.folder)


def test_bytes_that_change_midway_never_get_the_name(large, out):
    """The list is of the old bytes, so the new ones cannot be right: that is said."""
    with pytest.raises(
        DamagedFileError, match="twice: the server's file is damaged, or has just changed"
    ):
        fetch_while_it_changes(large, out, other_bytes=True)

    assert not [name for name in files_in(out) if name.startswith(SHARD)]


def test_an_answer_that_comes_after_a_restart_does_no_harm(large, out):
    """A second connection hears of the change only when the file is being fetched again."""
    large.rate = 20 * MB
    go_on = threading.Event()
    early = replace(other_etag(), wants=lambda ask: ask.nbytes > 1)
    late = replace(early, answer=lambda ask: go_on.wait(180) and other_etag().answer(ask))
    large.fault(late, path=SHARDS)
    large.fault(early, path=SHARDS)
    until = time.monotonic() + 120

    for event in steps(large, out, connections=2):
        if isinstance(event, Restarted):
            threading.Timer(0.3, go_on.set).start()
        assert time.monotonic() < until, "nobody fetches the file any more"

    assert_whole(out, large.folder)


def test_a_file_that_changes_again_and_again_is_given_up(server, out):
    changing = replace(other_etag(), wants=lambda ask: ask.nbytes > 1)
    server.fault(changing, path=SHARDS, times=99)

    with pytest.raises(DownloadError, match="changes on the server again and again"):
        fetch(server, out)

    assert len(asked(server)) == 4


def test_a_run_that_was_stopped_while_it_hashed_ends_without_a_request_for_the_body(
    large, out, begun
):
    line, _, marks = begun.read_bytes().partition(b"\n")
    begun.with_suffix("").write_bytes((large.folder / SHARD).read_bytes())
    begun.write_bytes(line + b"\n" + b"\1" * len(marks))
    before = len(asked(large))

    fetch(large, out)

    assert_whole(out, large.folder)
    assert len(asked(large)) == before
