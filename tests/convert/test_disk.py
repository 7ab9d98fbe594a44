"""An I/O error names its file, which the system does not once a file is open."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from llamakit.checkpoint.block_reader import read_blocks
from llamakit.convert.disk import ALIGNMENT, Buffer, DiskFile, align_up
from llamakit.errors import DamagedFileError

UNREADABLE = Path("/proc/self/mem")
"""A regular file whose first bytes cannot be read: EIO."""

pytestmark = pytest.mark.skipif(not UNREADABLE.exists(), reason="only Linux has such a file")


def test_reading_for_a_conversion():
    file = DiskFile(UNREADABLE, direct=False)

    with pytest.raises(OSError, match=f"Input/output error.*{UNREADABLE}") as it:
        file.read(Buffer(ALIGNMENT).memory, 0, ALIGNMENT)

    file.close()
    assert it.value.errno == errno.EIO


def test_reading_for_a_checksum():
    with pytest.raises(OSError, match=f"Input/output error.*{UNREADABLE}"):
        list(read_blocks(UNREADABLE))


def test_a_file_that_became_shorter_is_named_with_both_ends(tmp_path):
    path = tmp_path / "consolidated.00.pth"
    path.write_bytes(bytes(ALIGNMENT + 100))
    file = DiskFile(path, direct=False)

    with pytest.raises(DamagedFileError, match=r"00\.pth ends at byte 4196, and had 12288 when"):
        file.read(Buffer(2 * ALIGNMENT).memory, ALIGNMENT, 2 * ALIGNMENT)

    file.close()


@pytest.mark.parametrize("direct", [False, True])
def test_writing_on_a_full_disk(small_disk, direct):
    path = small_disk(64 << 10) / "consolidated.00.pth"
    file = DiskFile(path, write=True, direct=direct)

    with pytest.raises(OSError, match=r"No space left.*consolidated.00.pth"):
        file.write(Buffer(1 << 20).memory, 0)

    file.close()


@pytest.mark.parametrize(
    ("nbytes", "up"), [(0, 0), (1, 4096), (4095, 4096), (4096, 4096), (4097, 8192)]
)
def test_places_are_rounded_up_to_what_the_disk_takes(nbytes, up):
    assert align_up(nbytes) == up


@pytest.mark.skipif(sys.platform != "linux", reason="blocks are reserved by fallocate(2)")
def test_blocks_are_reserved_before_they_are_written(tmp_path):
    file = DiskFile(tmp_path / "file", write=True)
    if not file.direct:
        pytest.skip("this file system has no direct access")

    file.allocate(8 * ALIGNMENT)
    reserved = file.path.stat().st_blocks
    file.write(Buffer(ALIGNMENT).memory, 0)
    file.finish(100)
    file.close()

    assert reserved * 512 >= 8 * ALIGNMENT
    assert file.path.read_bytes() == bytes(100)
