"""A small file is whole or not there, keeps its mode, and a kill leaves nothing."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from llamakit.errors import DestinationError, NotRegularFileError
from llamakit.files import atomic_file
from llamakit.files.atomic_file import write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["unnamed", "named"])
def file_system(request, monkeypatch):
    """With and without files that have no name (O_TMPFILE)."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE")


@pytest.mark.usefixtures("file_system")
@pytest.mark.parametrize("old", [None, b"old"])
def test_the_file_has_the_bytes_and_nothing_is_next_to_it(tmp_path, old):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)

    write_atomically(path, b"new")

    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.usefixtures("file_system")
def test_a_file_keeps_its_mode_and_a_new_one_obeys_the_umask(tmp_path):
    (tmp_path / "old").write_bytes(b"")
    (tmp_path / "old").chmod(0o640)

    umask = os.umask(0o027)
    try:
        write_atomically(tmp_path / "old", b"x")
        write_atomically(tmp_path / "new", b"x")
        write_atomically(tmp_path / "secret", b"x", mode=0o600)
    finally:
        os.umask(umask)

    modes = [stat.S_IMODE((tmp_path / it).stat().st_mode) for it in ("old", "new", "secret")]
    assert modes == [0o640, 0o640, 0o600]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file another group")
def test_a_file_keeps_its_group(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    os.chown(path, -1, 12345)

    write_atomically(path, b"x")

    assert path.stat().st_gid == 12345


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_of_the_users_own_stays_and_its_file_is_written(tmp_path, exists):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("second")
    (tmp_path / "second").symlink_to("real/file")
    if exists:
        (tmp_path / "real" / "file").write_bytes(b"old")

    write_atomically(tmp_path / "link", b"new")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_bytes() == b"new"
    assert names(tmp_path / "real") == ["file"]


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")

    with pytest.raises(DestinationError, match="loop of links"):
        write_atomically(tmp_path / "one", b"x")


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "link").symlink_to("/dev/null")

    with pytest.raises(NotRegularFileError, match="it is a device"):
        write_atomically(tmp_path / "link", b"x")


def test_the_bytes_are_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []
    path.write_bytes(b"old")
    real = os.fsync

    def fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        seen.append(("folder" if is_folder else os.fstat(descriptor).st_size, path.read_bytes()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(path, b"longer")

    assert seen == [(6, b"old"), ("folder", b"longer")]


@pytest.mark.usefixtures("file_system")
def test_a_full_disk_keeps_the_old_file_and_names_it(small_disk):
    path = small_disk(64 << 10) / "file"
    path.write_bytes(b"old")

    with pytest.raises(OSError, match=r"No space left.*file") as it:
        write_atomically(path, bytes(1 << 20))

    assert it.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert names(path.parent) == ["file"]


def test_a_read_only_file_system_names_the_file(small_disk):
    place = small_disk(64 << 10)
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)

    with pytest.raises(OSError, match=r"Read-only file system.*file"):
        write_atomically(place / "file", b"x")


WRITES = """
import os, sys
from pathlib import Path
from llamakit.files.atomic_file import write_atomically
if sys.argv[2] == "named":
    del os.O_TMPFILE
path = Path(sys.argv[1])
print("ready", flush=True)
while True:
    write_atomically(path, b"x" * 100_000)
    write_atomically(path, b"y" * 200_000)
"""


def kill_while_writing(path, kind, delay):
    """Kill a process that writes a file again and again."""
    command = [sys.executable, "-c", WRITES, path, kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)


def check_kills(folder, kind, kills):
    """Kill writers, and return how often one left a file."""
    path, left = folder / "file", 0
    for number in range(kills):
        kill_while_writing(path, kind, 0.001 * (number % 23))
        if path.exists():
            assert path.read_bytes() in (b"x" * 100_000, b"y" * 200_000, b"mine")
        left += len(set(names(folder)) - {"file"})
        write_atomically(path, b"mine")
        assert names(folder) == ["file"]
    return left


@pytest.mark.parametrize("kind", ["unnamed", "named"])
def test_a_kill_leaves_a_whole_file_and_the_next_write_leaves_that_alone(tmp_path, kind):
    check_kills(tmp_path, kind, 5)


@pytest.mark.soak
def test_hundreds_of_kills_leave_almost_nothing(tmp_path):
    assert check_kills(tmp_path, "unnamed", 300) <= 3


def test_a_leftover_of_a_writer_that_lives_stays(tmp_path):
    left = tmp_path / f".file.llamakit-{'0' * 16}"
    left.write_bytes(b"half")
    descriptor = atomic_file._locked(os.open(left, os.O_RDONLY))

    write_atomically(tmp_path / "file", b"x")
    assert left.exists()
    os.close(descriptor)
    write_atomically(tmp_path / "file", b"x")

    assert names(tmp_path) == ["file"]
