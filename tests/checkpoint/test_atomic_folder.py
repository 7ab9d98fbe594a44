"""A folder that appears only when it is whole."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys

import pytest

from llamakit.checkpoint import atomic_folder as staging
from llamakit.checkpoint.atomic_folder import atomic_folder, check_space
from llamakit.errors import DestinationError, NoSpaceError


def make(path, text="new"):
    path.mkdir()
    (path / "file").write_text(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_destination_appears_when_the_block_ends(tmp_path):
    with atomic_folder(tmp_path / "out") as folder:
        make(folder)
        assert "out" not in names(tmp_path)

    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "file").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_nothing(tmp_path, error):
    with pytest.raises(error), atomic_folder(tmp_path / "out") as folder:  # noqa: PT012
        make(folder)
        raise error

    assert names(tmp_path) == []


def test_an_existing_destination_is_refused_and_stays(tmp_path):
    make(tmp_path / "out", "old")

    with (
        pytest.raises(DestinationError, match=r"exists already.*force=True"),
        atomic_folder(tmp_path / "out"),
    ):
        pytest.fail("the block has begun")

    assert (tmp_path / "out" / "file").read_text() == "old"


@pytest.mark.parametrize("exchange", [True, False])
def test_force_replaces_at_the_end_only(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(staging, "exchange", lambda *_: False)
    make(tmp_path / "out", "old")

    with atomic_folder(tmp_path / "out", force=True) as folder:
        make(folder)
        assert (tmp_path / "out" / "file").read_text() == "old"

    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "file").read_text() == "new"


def test_an_error_with_force_keeps_the_old_one(tmp_path):
    make(tmp_path / "out", "old")

    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "out", force=True) as folder:  # noqa: PT012
        make(folder)
        raise RuntimeError

    assert (tmp_path / "out" / "file").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_the_source_is_never_replaced(tmp_path):
    make(tmp_path / "out", "old")
    (tmp_path / "out" / "inner").mkdir()

    for source in (tmp_path / "out", tmp_path / "out" / "inner"):
        with (
            pytest.raises(DestinationError, match="would remove"),
            atomic_folder(tmp_path / "out", force=True, source=source),
        ):
            pytest.fail("the block has begun")


def test_a_file_is_never_replaced(tmp_path):
    (tmp_path / "out").write_text("mine")

    with (
        pytest.raises(DestinationError, match="not a folder"),
        atomic_folder(tmp_path / "out", force=True),
    ):
        pytest.fail("the block has begun")


def test_a_destination_that_appears_meanwhile_is_kept(tmp_path):
    with (  # noqa: PT012
        pytest.raises(DestinationError, match="meanwhile"),
        atomic_folder(tmp_path / "out") as folder,
    ):
        make(folder)
        make(tmp_path / "out", "theirs")

    assert (tmp_path / "out" / "file").read_text() == "theirs"


def test_no_parent_is_refused_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(DestinationError, match="mkdir -p"), atomic_folder(tmp_path / "no" / "out"):
        pytest.fail("the block has begun")


KILLED = """
import os, signal, sys
from pathlib import Path
from llamakit.checkpoint.atomic_folder import atomic_folder
with atomic_folder(Path(sys.argv[1])) as folder:
    folder.mkdir()
    (folder / "file").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_leftovers_of_a_killed_run_go_with_the_next(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")], check=False)
    (left,) = names(tmp_path)
    assert left.startswith(".out.llamakit-")

    with atomic_folder(tmp_path / "out") as folder:
        assert left not in names(tmp_path)
        make(folder)

    assert names(tmp_path) == ["out"]


def test_the_folder_of_a_run_that_lives_is_left_alone(tmp_path):
    with atomic_folder(tmp_path / "out") as first:
        make(first, "first")
        with atomic_folder(tmp_path / "out2") as other, pytest.raises(RuntimeError):  # noqa: PT012
            make(other)
            with atomic_folder(tmp_path / "out"):
                raise RuntimeError
        assert (first / "file").read_text() == "first"

    assert (tmp_path / "out" / "file").read_text() == "first"


def test_what_only_looks_like_a_leftover_stays(tmp_path):
    (tmp_path / ".out.llamakit-notes").mkdir()
    (tmp_path / ".outer.llamakit-01234567").mkdir()

    with atomic_folder(tmp_path / "out") as folder:
        make(folder)

    assert names(tmp_path) == [".out.llamakit-notes", ".outer.llamakit-01234567", "out"]


def test_a_folder_that_was_being_replaced_is_put_back(tmp_path):
    left = tmp_path / ".out.llamakit-01234567"
    left.mkdir()
    make(left / "replaced", "old")

    staging.remove_leftovers(tmp_path / "out")

    assert (tmp_path / "out" / "file").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_a_link_to_a_folder_is_followed(tmp_path):
    make(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")

    with atomic_folder(tmp_path / "link", force=True) as folder:
        make(folder)

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_text() == "new"


def test_too_little_space_is_reported_with_numbers(tmp_path):
    free = shutil.disk_usage(tmp_path).free

    with pytest.raises(NoSpaceError, match=r"GB free, and .* GB are needed"):
        check_space(tmp_path, free + (10 << 30))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_reported_in_a_sentence(tmp_path, number):
    with (  # noqa: PT012
        pytest.raises(NoSpaceError, match="free some space"),
        atomic_folder(tmp_path / "out") as folder,
    ):
        make(folder)
        raise OSError(number, os.strerror(number))

    assert names(tmp_path) == []


def test_an_empty_folder_is_no_obstacle(tmp_path):
    (tmp_path / "out").mkdir()

    with atomic_folder(tmp_path / "out") as folder:
        make(folder)
        assert names(tmp_path / "out") == []

    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["file"]


def test_an_empty_folder_that_gets_a_file_meanwhile_stays(tmp_path):
    (tmp_path / "out").mkdir()

    with pytest.raises(DestinationError, match="has appeared meanwhile"):  # noqa: SIM117, PT012
        with atomic_folder(tmp_path / "out") as folder:
            make(folder)
            (tmp_path / "out" / "other").write_text("old")

    assert names(tmp_path / "out") == ["other"]


def test_a_mount_point_is_filled(small_disk):
    place = small_disk(1 << 20)
    (place / "lost+found").mkdir()

    with atomic_folder(place) as folder:
        make(folder)

    assert names(place) == ["file", "lost+found"]
    with pytest.raises(DestinationError, match="exists already"), atomic_folder(place):
        pytest.fail("the block has begun")


def test_an_error_leaves_a_mount_point_empty(small_disk):
    place = small_disk(1 << 20)

    with pytest.raises(RuntimeError), atomic_folder(place) as folder:  # noqa: PT012
        make(folder)
        raise RuntimeError

    assert names(place) == []


def test_a_killed_run_s_folder_in_a_mount_point_is_removed(small_disk):
    place = small_disk(1 << 20)
    (place / f".{place.name}.llamakit-0123456789abcdef").mkdir(mode=0o700)

    with atomic_folder(place) as folder:
        make(folder)

    assert names(place) == ["file"]


def test_room_is_looked_for_on_the_mounted_file_system(small_disk):
    with pytest.raises(NoSpaceError, match=r"has 0\.00 GB free"):
        check_space(small_disk(1 << 20), 2 << 20)
