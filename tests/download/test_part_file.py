"""A file with holes knows after whatever happened which of its blocks are there."""

from __future__ import annotations

import json
import os
import random
import sys
import threading

import pytest

from llamakit.download.part_file import BLOCK_NBYTES as BLOCK
from llamakit.download.part_file import Identity, PartFile, resumable_nbytes

NBYTES = 5 * BLOCK + 1000
IDENTITY = Identity("llama-2-7b/consolidated.00.pth", NBYTES, '"abc-2"')


@pytest.fixture
def final(tmp_path):
    return tmp_path / "consolidated.00.pth"


def part_with(final, *blocks, identity=IDENTITY):
    """Make a part of which these blocks are there, as a process leaves it that is killed."""
    part = PartFile(final, identity)
    with part.opened() as descriptor:
        for block in blocks:
            data = random.Random(block).randbytes(BLOCK)[: identity.nbytes - block * BLOCK]
            os.pwrite(descriptor, data, block * BLOCK)
            part.mark(block * BLOCK, block * BLOCK + len(data))
    return part


def header_of(part):
    return json.loads(part.state_path.read_bytes().partition(b"\n")[0])


def rewrite_header(part, **changed):
    line, _, marks = part.state_path.read_bytes().partition(b"\n")
    header = json.dumps({**json.loads(line), **changed}).encode()
    part.state_path.write_bytes(header + b"\n" + marks)


def test_a_new_part_is_one_gap_and_has_its_size(final):
    part = PartFile(final, IDENTITY)

    assert part.gaps() == [(0, NBYTES)]
    assert part.path.stat().st_size == NBYTES
    assert part.nbytes_there == 0


def test_what_was_marked_is_there_in_the_next_run(final):
    part_with(final, 0, 2, 5).close()

    part = PartFile(final, IDENTITY)

    assert part.gaps() == [(BLOCK, 2 * BLOCK), (3 * BLOCK, 5 * BLOCK)]
    assert part.nbytes_there == 2 * BLOCK + 1000
    assert resumable_nbytes(final) >= part.nbytes_there


def test_a_block_counts_only_when_it_is_whole(final):
    part = PartFile(final, IDENTITY)

    begun = part.mark(BLOCK, 3 * BLOCK - 1)

    assert begun == 2 * BLOCK
    assert part.gaps() == [(0, BLOCK), (2 * BLOCK, NBYTES)]


def test_the_last_block_is_whole_at_the_end_of_the_file(final):
    part = PartFile(final, IDENTITY)

    part.mark(5 * BLOCK, NBYTES)

    assert part.gaps() == [(0, 5 * BLOCK)]


def test_after_another_start_of_the_machine_only_what_was_synced_is_believed(final):
    part = part_with(final, 0, 1)
    part.sync()
    part.mark(3 * BLOCK, 4 * BLOCK)
    part.close()
    rewrite_header(part, boot="another start")

    again = PartFile(final, IDENTITY)

    assert again.gaps() == [(2 * BLOCK, NBYTES)]


def test_in_the_same_start_of_the_machine_all_is_believed(final):
    part = part_with(final, 0, 1)
    part.sync()
    part.mark(3 * BLOCK, 4 * BLOCK)
    part.close()

    again = PartFile(final, IDENTITY)

    assert again.gaps() == [(2 * BLOCK, 3 * BLOCK), (4 * BLOCK, NBYTES)]


@pytest.mark.parametrize(
    "other",
    [
        Identity(IDENTITY.path, NBYTES, '"xyz-2"'),
        Identity(IDENTITY.path, NBYTES + 1, IDENTITY.validator),
        Identity(IDENTITY.path, NBYTES - 9 * 1000, IDENTITY.validator),
        Identity("llama-2-13b/consolidated.00.pth", NBYTES, IDENTITY.validator),
    ],
    ids=["validator", "larger", "smaller", "path"],
)
def test_what_is_there_of_another_file_is_dropped(final, other):
    part_with(final, 0, 1, 2).close()

    part = PartFile(final, other)

    assert part.gaps() == [(0, other.nbytes)]
    assert part.path.stat().st_size == other.nbytes
    assert not part.path.read_bytes().strip(b"\0")


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.write_bytes(b""),
        lambda state: state.write_bytes(b"{}\n" + b"\1" * 6),
        lambda state: state.write_bytes(b"[]\n" + b"\1" * 6),
        lambda state: state.write_bytes(b"\xff\xfe\n\1"),
        lambda state: state.write_bytes(state.read_bytes()[:-1]),
        lambda state: state.write_bytes(state.read_bytes() + b"\1"),
        lambda state: state.unlink(),
    ],
)
def test_a_state_that_makes_no_sense_is_no_state(final, damage):
    part = part_with(final, 0, 1)
    part.close()
    damage(part.state_path)

    assert PartFile(final, IDENTITY).gaps() == [(0, NBYTES)]


def test_marks_without_the_bytes_are_not_believed(final):
    part = part_with(final, 0, 1)
    part.close()
    part.path.write_bytes(b"short")

    assert PartFile(final, IDENTITY).gaps() == [(0, NBYTES)]


def test_a_mark_of_no_known_kind_is_no_mark(final):
    part = part_with(final, 0)
    part.close()
    part.state_path.write_bytes(part.state_path.read_bytes()[:-6] + b"\7\1\2\0\xff\1")

    assert PartFile(final, IDENTITY).gaps() == [(0, BLOCK), (3 * BLOCK, 5 * BLOCK)]


def test_the_state_says_what_the_bytes_are_of_and_nothing_of_the_link(final):
    part = PartFile(final, IDENTITY)

    header = header_of(part)

    assert set(header) == {"format", "block_nbytes", "path", "nbytes", "validator", "boot"}
    assert header["nbytes"] == NBYTES


def test_writing_may_begin_early_and_changes_nothing(final):
    part = part_with(final, 0, 2)
    before = part.path.read_bytes(), part.state_path.read_bytes()

    assert part.begin_writing() == (sys.platform == "linux")

    assert (part.path.read_bytes(), part.state_path.read_bytes()) == before
    part.discard()
    assert not part.begin_writing()  # by a thread that has not heard of it yet
    assert list(final.parent.iterdir()) == []


def test_publishing_gives_the_name_and_removes_the_state(final):
    part = part_with(final, *range(6))
    content = part.path.read_bytes()

    part.publish("its checksum")

    assert final.read_bytes() == content
    assert [path.name for path in final.parent.iterdir()] == [final.name]


def test_discarding_removes_everything(final):
    part_with(final, 0).discard()

    assert list(final.parent.iterdir()) == []


def test_a_mark_on_a_closed_part_does_nothing(final):
    part = part_with(final, 0)
    part.close()

    assert part.mark(BLOCK, 2 * BLOCK) == BLOCK
    part.sync()
    assert PartFile(final, IDENTITY).gaps() == [(BLOCK, NBYTES)]


def test_an_empty_file_has_no_gap(final):
    part = PartFile(final, Identity("x", 0, ""))

    assert part.gaps() == []
    assert part.wait_for_more(0) == 0
    part.publish("its checksum")
    assert final.read_bytes() == b""


@pytest.mark.parametrize(
    "marks",
    [[(0, 1)], [(0, 3)], [(1, 3), (0, 1)], [(1, 2), (0, 3)]],
    ids=["the next", "several", "a hole is filled", "over what is there"],
)
def test_whoever_waits_for_bytes_in_order_is_reported(final, marks):
    part = PartFile(final, IDENTITY)
    told = []
    waiting = threading.Thread(target=lambda: told.append(part.wait_for_more(0)), daemon=True)
    waiting.start()

    for start, stop in marks:
        part.mark(start * BLOCK, stop * BLOCK)
    waiting.join(10)

    assert told == [max(stop for _, stop in marks) * BLOCK]


def test_a_mark_across_the_bytes_that_are_waited_for_wakes_who_waits(final):
    part_with(final, 0).close()
    part = PartFile(final, IDENTITY)
    told = []
    waiting = threading.Thread(target=lambda: told.append(part.wait_for_more(BLOCK)), daemon=True)
    waiting.start()
    while not part._grown._waiters:  # it waits, with the frontier behind block 0
        pass

    part.mark(0, 3 * BLOCK)
    waiting.join(10)

    assert told == [3 * BLOCK]


def test_whoever_waits_is_let_go_when_the_part_is_closed(final):
    part = PartFile(final, IDENTITY)
    told = []
    waiting = threading.Thread(target=lambda: told.append(part.wait_for_more(0)), daemon=True)
    waiting.start()

    part.close()
    waiting.join(10)

    assert told == [None]


def test_state_is_for_its_owner_alone_where_an_earlier_version_left_it_for_all(final):
    part_with(final, 1).close()
    state = final.with_name(final.name + ".part.state")
    state.chmod(0o644)

    PartFile(final, IDENTITY).close()

    assert state.stat().st_mode & 0o777 == 0o600


def test_a_part_that_a_thread_still_has_open_is_published_where_open_files_keep_their_names(
    final, monkeypatch
):
    part = part_with(final, *range(6))
    rename, is_refused, is_read = type(final).replace, threading.Event(), threading.Event()

    def rename_as_on_windows(path, target):
        if not is_read.is_set():
            is_refused.set()
            raise PermissionError(13, "Permission denied", str(path))
        return rename(path, target)

    def read():
        with part.opened():
            is_refused.wait(180)
            is_read.set()

    monkeypatch.setattr(type(final), "replace", rename_as_on_windows)
    thread = threading.Thread(target=read)
    thread.start()

    part.publish("its checksum")

    thread.join()
    assert final.stat().st_size == NBYTES
