"""Files are read whole and in order, whatever their size and the file system."""

from __future__ import annotations

import hashlib
import os
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamakit.checkpoint import block_reader as blocks
from llamakit.checkpoint.block_reader import read_blocks
from llamakit.checkpoint.hashing import (
    BlockRead,
    Checksum,
    FilePass,
    FileRead,
    md5_files,
    read_files,
)

BLOCK = 8192


@pytest.mark.parametrize("direct", [blocks._DIRECT, 0], ids=["direct", "buffered"])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nbytes=st.integers(0, 4 * BLOCK) | st.sampled_from([BLOCK, 2 * BLOCK, 2 * BLOCK + 4096]))
def test_blocks_together_are_the_file(tmp_path, monkeypatch, direct, nbytes):
    monkeypatch.setattr(blocks, "_DIRECT", direct)
    path = tmp_path / "file"
    path.write_bytes(os.urandom(nbytes))

    read = [(offset, bytes(block)) for offset, block in read_blocks(path, BLOCK)]

    assert b"".join(block for _, block in read) == path.read_bytes()
    assert [offset for offset, _ in read] == list(range(0, nbytes, BLOCK))


def test_a_file_system_without_direct_access_is_read_through_the_cache(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(5 * BLOCK + 1))
    really_open = os.open

    def refusing(path, flags, *mode):
        if flags & blocks._DIRECT:
            raise OSError(22, "Invalid argument")
        return really_open(path, flags, *mode)

    monkeypatch.setattr(os, "open", refusing)

    assert b"".join(bytes(block) for _, block in read_blocks(path, BLOCK)) == path.read_bytes()


def test_md5_of_several_files(tmp_path):
    paths = [tmp_path / str(number) for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(os.urandom(number * 3_000_000))

    sums = md5_files(paths)

    assert sums == {path: hashlib.md5(path.read_bytes()).hexdigest() for path in paths}


def test_every_consumer_sees_the_same_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(9_000_000))
    consumers = [Checksum(), Checksum(), Checksum()]

    events = list(read_files([FilePass(path, consumers)]))

    assert sum(event.nbytes for event in events if isinstance(event, BlockRead)) == 9_000_000
    assert [event for event in events if isinstance(event, FileRead)] == [FileRead(path)]
    assert {one.hexdigest() for one in consumers} == {hashlib.md5(path.read_bytes()).hexdigest()}


def test_a_file_that_cannot_be_read_does_not_stop_the_others(tmp_path):
    (tmp_path / "good").write_bytes(b"good")

    events = list(
        read_files([FilePass(tmp_path / name, [Checksum()]) for name in ("absent", "good")])
    )

    errors = {event.path.name: event.error for event in events if isinstance(event, FileRead)}
    assert isinstance(errors["absent"], FileNotFoundError)
    assert errors["good"] is None


def test_a_consumer_that_fails_is_heard(tmp_path):
    class Broken:
        def update(self, *_):
            raise ZeroDivisionError

    (tmp_path / "file").write_bytes(b"something")

    with pytest.raises(ZeroDivisionError):
        list(read_files([FilePass(tmp_path / "file", [Broken()])]))


def test_whoever_stops_asking_stops_the_reading(tmp_path):
    paths = [tmp_path / str(number) for number in range(4)]
    for path in paths:
        path.write_bytes(bytes(20 << 20))

    before = set(threading.enumerate())

    events = read_files([FilePass(path, [Checksum()]) for path in paths])
    next(events)
    events.close()

    assert set(threading.enumerate()) <= before
