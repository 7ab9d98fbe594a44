"""The checksum that is computed while a file arrives, and what is said when it cannot be."""

from __future__ import annotations

import os

import pytest

from llamakit.download import hash_thread
from llamakit.download.hash_thread import HashThread
from llamakit.download.part_file import BLOCK_NBYTES, Identity, PartFile
from llamakit.errors import DownloadError


@pytest.fixture
def part(tmp_path):
    identity = Identity("llama-2-7b/consolidated.00.pth", BLOCK_NBYTES, '"abc-2"')
    return PartFile(tmp_path / "consolidated.00.pth", identity)


def hashed(part):
    """Hash a part to its end in this thread; return what comes of it."""
    results = []
    HashThread(part, None, results.append).run()
    return results


def test_a_part_that_is_gone_is_reported(part):
    part.path.unlink()

    (error,) = hashed(part)

    assert isinstance(error, OSError)
    assert str(part.path) in str(error)


def test_a_part_that_became_shorter_is_reported(part):
    part.mark(0, BLOCK_NBYTES)
    os.truncate(part.path, 0)

    (error,) = hashed(part)

    assert isinstance(error, DownloadError)
    assert "became shorter while it was written" in str(error)


def test_of_a_part_that_was_closed_nothing_is_said(part):
    part.close()
    part.path.unlink()

    assert hashed(part) == []


@pytest.fixture
def long_part(tmp_path, monkeypatch):
    monkeypatch.setattr(hash_thread, "MAX_BEHIND_NBYTES", 2 * BLOCK_NBYTES)
    identity = Identity("llama-2-7b/consolidated.00.pth", 8 * BLOCK_NBYTES, '"abc-2"')
    return PartFile(tmp_path / "consolidated.00.pth", identity)


def test_hashing_is_behind_until_it_has_caught_up_with_what_arrived(long_part):
    thread = HashThread(long_part, None, lambda _: None)
    behind = []

    for block in range(4):
        long_part.mark(block * BLOCK_NBYTES, (block + 1) * BLOCK_NBYTES)
        behind.append(thread.is_behind())
    long_part.mark(0, long_part.identity.nbytes)
    thread.run()

    assert behind == [False, False, True, True]
    assert not thread.is_behind()


def test_hashing_is_not_behind_where_it_waits_for_a_gap(long_part):
    thread = HashThread(long_part, None, lambda _: None)

    long_part.mark(BLOCK_NBYTES, long_part.identity.nbytes)

    assert not thread.is_behind()


def test_what_an_earlier_run_downloaded_does_not_put_hashing_behind(long_part):
    long_part.mark(0, 5 * BLOCK_NBYTES)
    long_part.close()

    part = PartFile(long_part.final, long_part.identity)
    thread = HashThread(part, None, lambda _: None)
    part.mark(5 * BLOCK_NBYTES, 6 * BLOCK_NBYTES)

    assert not thread.is_behind()


def test_hashing_that_has_failed_is_not_waited_for(long_part):
    thread = HashThread(long_part, None, lambda _: None)
    long_part.mark(0, long_part.identity.nbytes)
    os.truncate(long_part.path, 0)

    thread.run()

    assert not thread.is_behind()
