"""A disk that is full, a folder that cannot be written to, or that another run works in."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
import time

import pytest
from faults import longer, status
from fetching import FAST, MB, SHARDS, assert_whole, fetch, files_in

from llamakit.download.part_file import BLOCK_NBYTES, resumable_nbytes
from llamakit.errors import DestinationError, LinkExpiredError, NoSpaceError

SHARD = "llama-2-7b/consolidated.00.pth"


def test_a_file_that_the_disk_cannot_hold_is_refused_before_its_first_byte(server, out):
    server.fault(longer(10**13), path=SHARDS, times=99)

    with pytest.raises(NoSpaceError, match=r"1\d{4}\.\d\d GB are needed"):
        fetch(server, out)

    assert [one.range for one in server.requests if one.path.endswith(".pth")] == [(0, 1)]
    assert not list(out.glob("*/*.part*"))


def test_a_disk_that_is_full_midway_is_a_sentence_and_the_rest_is_kept(isolated, large, out):
    large.fault(status(403), path=SHARDS, times=1, skip=1)
    with pytest.raises(LinkExpiredError):
        fetch(large, out, connections=1)  # the part has its whole size now
    limit = 9 * MB + 1000  # the kernel's limit on the size of a file stands for a full disk
    command = [sys.executable, "-m", "llamakit", "download", "7B", "--output-dir", out, *FAST]

    done = subprocess.run(
        [*command, "--connections", "1", "--json"],  # one goes in order, up to the limit
        env={**isolated, "LLAMAKIT_URL": large.link},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert done.returncode == 1
    assert "llamakit: error: " in done.stderr
    assert "File too large. What is there is kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["exit_status"] == 1
    assert not (out / SHARD).exists()
    before, kept = large.nbytes, resumable_nbytes(out / SHARD)
    assert 9 * MB - BLOCK_NBYTES <= kept <= 9 * MB
    fetch(large, out)
    assert_whole(out, large.folder)
    assert large.nbytes - before == 20 * MB + 12_345 - kept + 1  # and the probe


def test_a_small_disk_that_another_program_fills_midway_loses_nothing(isolated, large, small_disk):
    disk = small_disk(32 * MB)
    out, other = disk / "out", disk / "other"
    command = [sys.executable, "-m", "llamakit", "download", "7B", "--output-dir", out, *FAST]
    command += ["--connections", "2", "--limit-rate", "20M"]
    env = {**isolated, "LLAMAKIT_URL": large.link}
    large.hold(6 * MB)
    child = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    while resumable_nbytes(out / SHARD) < 5 * MB:  # but for the two blocks that have begun
        time.sleep(0.01)
        assert child.poll() is None

    fill(other)
    large.release()
    _, told = child.communicate(timeout=180)

    assert child.returncode == 1
    assert "No space left on device. What is there is kept: free some space" in told
    assert "Traceback" not in told
    other.unlink()
    before, kept = large.nbytes, resumable_nbytes(out / SHARD)
    assert kept >= 5 * MB
    subprocess.run(command, env=env, capture_output=True, timeout=180, check=True)
    assert_whole(out, large.folder)
    assert large.nbytes - before == 20 * MB + 12_345 - kept + 1  # and the probe


@pytest.mark.parametrize("room", [1, 2, 4, 7, 9])
def test_a_small_disk_without_room_for_files_loses_nothing(download, server, small_disk, room):
    disk = small_disk(32 * MB, nfiles=20)
    others = [disk / f"other{number}" for number in range(20 - room)]
    for path in others:
        path.touch()

    done = download("--output-dir", disk / "out", link=server.link)

    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    for path in others:
        path.unlink()
    assert download("--output-dir", disk / "out", link=server.link).returncode == 0
    assert_whole(disk / "out", server.folder)


def fill(path):
    """Take all the room that a disk has left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_second_run_into_the_same_folder_is_refused(server, out):
    server.hold(100_000)
    first = threading.Thread(target=lambda: fetch(server, out), daemon=True)
    first.start()
    server.wait_for(100_000, 180)

    with pytest.raises(DestinationError, match="another llamakit is downloading into"):
        fetch(server, out)

    server.release()
    first.join(60)
    assert_whole(out, server.folder)


def test_a_folder_that_cannot_be_made_is_a_sentence(server, download):
    done = download("--json", "--output-dir", "/proc/self/llamakit", link=server.link)

    assert done.returncode == 1
    assert "/proc/self/llamakit" in done.stderr
    assert "Traceback" not in done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["event"], last["exit_status"]) == ("error", 1)
    assert server.requests == []


def test_a_file_where_the_folder_should_be_is_a_sentence(server, download, out):
    out.write_text("a file")

    done = download(link=server.link)

    assert done.returncode == 2
    assert "is a file" in done.stderr
    assert out.read_text() == "a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_a_sentence(server, download, out):
    out.mkdir(mode=0o555)

    done = download(link=server.link)

    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_in_the_place_of_a_file_is_a_sentence(server, download, out):
    (out / SHARD).mkdir(parents=True)

    done = download(link=server.link)

    assert done.returncode == 1
    assert "Is a directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_full_disk_or_a_kill_left_of_files_being_written_is_removed(server, out):
    (out / "llama-2-7b").mkdir(parents=True)
    shard = "llama-2-7b/.consolidated.00.pth.part.state"
    for name in ("..llamakit-download.json", ".LICENSE", shard):
        (out / f"{name}.llamakit-0123456789abcdef").write_text("half")

    fetch(server, out)

    assert_whole(out, server.folder)


def test_files_of_others_in_the_folder_are_left_alone(server, out):
    (out / "llama-2-7b").mkdir(parents=True)
    (out / "llama-2-7b" / "notes.txt").write_text("mine")
    server.fault(status(500), path=SHARDS, times=2)

    fetch(server, out)

    assert files_in(out) == sorted([*files_in(server.folder), "llama-2-7b/notes.txt"])
