"""Files are read whole and in order, whatever their size and the file system."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import sys
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nbytes=st.integers(0, 4 * BLOCK) | st.sampled_from([BLOCK, 2 * BLOCK, 2 * BLOCK + 4096]))
def test_blocks_together_are_the_file(tmp_path, nbytes):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(nbytes))

    read = [(offset, bytes(block)) for offset, block in read_blocks(path, BLOCK)]

    assert b"".join(block for _, block in read) == path.read_bytes()
    assert [offset for offset, _ in read] == list(range(0, nbytes, BLOCK))


@pytest.mark.skipif(sys.platform != "linux", reason="mincore(2) is asked for the cache")
def test_a_large_file_is_read_from_the_disk_and_not_from_the_cache(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(40 << 20))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    assert cached_nbytes(path) > 35 << 20

    blocks = read_blocks(path)
    next(blocks)

    assert cached_nbytes(path) < 20 << 20
    blocks.close()


def cached_nbytes(path):
    """Ask how many bytes of a file are in the kernel's cache."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        array = np.frombuffer(mapped, np.uint8)
        pages = np.zeros(len(array) // mmap.PAGESIZE, np.uint8)
        address = ctypes.c_void_p(array.ctypes.data)
        ctypes.CDLL(None).mincore(
            address, ctypes.c_size_t(len(array)), ctypes.c_void_p(pages.ctypes.data)
        )
        del array
    return int(np.count_nonzero(pages & 1)) * mmap.PAGESIZE


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
