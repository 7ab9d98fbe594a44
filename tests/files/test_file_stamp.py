"""A file that changes while it is read is noticed."""

from __future__ import annotations

import os

import pytest

from llamakit.errors import DamagedFileError
from llamakit.files.file_stamp import stamps, unchanged


def longer(path):
    path.write_bytes(b"longer than it was")


def rewritten(path):
    path.write_bytes(b"the same size".replace(b"s", b"S"))


def replaced(path):
    status = path.stat()
    path.with_name("new").write_bytes(b"the same size")
    os.utime(path.with_name("new"), ns=(status.st_atime_ns, status.st_mtime_ns))
    path.with_name("new").replace(path)


def removed(path):
    path.unlink()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (longer, "it had 13 bytes and has 18"),
        (rewritten, "it has been written to"),
        (replaced, "another file has its name"),
        (removed, "cannot be read any more"),
    ],
)
def test_a_change_is_reported_with_what_has_changed(tmp_path, change, told):
    path = tmp_path / "shard"
    path.write_bytes(b"the same size")

    with pytest.raises(DamagedFileError, match=told), unchanged(stamps([path])):
        change(path)


def test_reading_is_no_change(tmp_path):
    path = tmp_path / "shard"
    path.write_bytes(b"bytes")

    with unchanged(stamps([path, tmp_path / "absent"])):
        assert path.read_bytes() == b"bytes"
