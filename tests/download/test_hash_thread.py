"""The checksum that is computed while a file arrives, and what is said when it cannot be."""

from __future__ import annotations

import os

import pytest

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
